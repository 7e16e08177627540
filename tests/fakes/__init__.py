"""Stand-ins for the other side of a connection, with faults on demand."""
