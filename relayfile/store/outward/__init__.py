"""Calls that a node makes by itself: edits brought to providers, and content fetched from them.

Owns when and how a target is called: which addresses it may have (`addresses`), how fast (`pace`), whether at all
(`breaker`), what is said (`requests`) and what an answer means (`answers`). Claims and acknowledgements are those that
any other worker would make: nothing here writes a row.
"""
