"""Mirrors workspaces, or subtrees of them, to ordinary local directories.

Owns what stands below a mirror's root and the journal about it. Reads the store through its API only.
"""
