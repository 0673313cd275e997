"""Follow values through a program as the verifier does."""

from .auxdata import aux_data

__all__ = ["aux_data"]
