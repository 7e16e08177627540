"""Write-back decided: pure rules about operations, the agents' edits on their way to providers."""
