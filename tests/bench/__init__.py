"""Benchmarks: one module per bar, load from processes of its own, every figure measured in the run that prints it."""
