"""Settings: one table, three sources (file, environment, flags), one frozen result."""
