"""Whether what is stored agrees with itself: findings, what is looked for, and the seam to an engine that looks."""
