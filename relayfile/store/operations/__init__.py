"""Write-back at work: operations are made, claimed, answered, and tended while nobody looks."""
