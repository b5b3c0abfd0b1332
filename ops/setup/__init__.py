"""Set-up on a fresh machine. Runs before anything is installed, so it needs the standard library only."""
