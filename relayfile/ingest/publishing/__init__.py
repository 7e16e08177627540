"""The gRPC door: envelopes that services publish, and what operators ask."""
