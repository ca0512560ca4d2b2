"""Chervil."""
