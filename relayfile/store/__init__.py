"""Owns shards: plans and commits changes, serves files, listings and events.

The only writer of its shards' data. Knows nothing of webhooks, providers' signatures or local directories.
"""
