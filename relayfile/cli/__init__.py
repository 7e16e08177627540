"""The command `relayfile`: the only argument parsing and the only printing."""
