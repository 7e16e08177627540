"""A store and a plain model of it, side by side: what `tests/property` runs for seconds and `tests/soak` for long."""
