"""From durable changes to the store nodes: windows, folds, lanes and streams."""
