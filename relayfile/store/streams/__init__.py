"""What ingest processes are offered: folds in, outcomes, pauses and dead letters out."""
