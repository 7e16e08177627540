"""A whole system on one machine: its data directory, its processes, and sample deliveries to try it with.

Used by `relayfile up`, `relayfile demo`, the end-to-end tests and the benchmarks. Knows the processes only from
outside: their commands, environment, signals and address files.
"""
