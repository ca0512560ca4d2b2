"""Benchmarks: `python -m benchmarks --help`. Every figure stands beside the echo limit of its run."""
