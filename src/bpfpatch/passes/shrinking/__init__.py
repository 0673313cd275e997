"""Passes that make programs smaller, one file each, and what they share."""
