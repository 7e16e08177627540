"""What a batch does to a workspace: pure functions from rows and changes to new rows, events and outcomes."""
