"""Slow and obvious models that say what the fast code should do."""
