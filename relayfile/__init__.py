"""Relayfile: signed webhooks in, a tree of files out.

Three processes, each a package that never imports the others: `ingest` takes what providers send, `store` keeps it,
`syncd` mirrors it to directories. They meet in the protobuf API (`relayfile.v1`) and in a few dependency-free
modules of values and rules.
"""

__version__ = "0.1.0"
