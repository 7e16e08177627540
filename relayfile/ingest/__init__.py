"""Takes webhooks and envelopes, verifies and normalises them, makes them durable, coalesces and sends them on.

Owns the spool and the coalescer. Never decides what a change does to a file: that is the store's.
"""
