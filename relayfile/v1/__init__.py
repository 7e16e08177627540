"""Generated from proto/relayfile/v1 by `make proto`; everything else in this folder is overwritten."""
