"""Files that are followed while a process runs."""
