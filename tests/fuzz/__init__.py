"""Outside bytes against the parsers that meet them, steered by coverage: `python -m tests.fuzz TARGET [options]`.

What the property tests try with drawn values for seconds, these try for minutes with bytes that reach new code.
"""
