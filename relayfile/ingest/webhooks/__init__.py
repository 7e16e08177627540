"""The HTTP door: from the bytes of a connection to signed requests and their answers."""
