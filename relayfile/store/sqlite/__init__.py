"""The embedded engine: one SQLite file (apsw) per node, one writer, readers on their own snapshots."""
