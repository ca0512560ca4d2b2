"""Benchmarks: `python -m benchmarks --help`. Every figure stands beside the limits of its run."""
