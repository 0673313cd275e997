"""Random programs and inputs, a module for each kind."""
