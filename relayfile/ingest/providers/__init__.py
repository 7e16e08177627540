"""Providers: one declarative file each, and what makes it work."""
