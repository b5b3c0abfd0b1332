"""Administration: one file for each resource. Every route needs the scope admin."""
