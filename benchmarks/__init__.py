"""Measurements: each prints a table, and compares within one run."""
