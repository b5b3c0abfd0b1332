"""The command lines `inferflux` (runs processes) and `inferctl` (uses and administers them)."""
