"""What this process says of itself: pending, refused, outcomes, metrics."""
