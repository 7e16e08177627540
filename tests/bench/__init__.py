"""Benchmarks: one module per bar, load from processes of its own, every figure measured in the run that prints it."""

import os

# Before grpc is imported: its notes on forks would stand between the lines of results.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
