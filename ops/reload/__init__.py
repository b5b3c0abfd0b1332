"""The configuration read again while a process runs: on SIGHUP, and when its file changes."""
