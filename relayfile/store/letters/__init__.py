"""Dead letters: kept, tried again, handed to ingest, put aside."""
