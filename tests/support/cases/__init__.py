"""Cases as text: before and after, and how to load them."""
