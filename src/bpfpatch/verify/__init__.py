"""Whether two programs behave alike."""
