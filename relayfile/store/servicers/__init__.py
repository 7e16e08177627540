"""What a store node serves: one module for each service of `relayfile.v1`, and the readers that they share."""
