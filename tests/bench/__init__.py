"""Benchmarks: one module per bar, load from processes of its own, every figure measured in the run that prints it."""

import os

# Before grpc is imported: its notes on forks would stand between the lines of results.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# Nor its handlers of forks: uvloop forks, and with calls under way one started process in a hundred crashed in them
# before it began. (`relayfile up` runs on asyncio's loop, which starts processes otherwise: none of 1,200.)
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
