"""Tests: unit mirrors the package; contract, property, e2e, crash and bench stand beside it."""
