"""What is accepted and has no outcome yet, on disk: written, read back, settled, handed over."""
