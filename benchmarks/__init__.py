"""Measurements: each prints a table, and compares within one run.

``python -m benchmarks NAME``, see docs/benchmarks.md. Not part of the package, and
not installed with it.
"""
