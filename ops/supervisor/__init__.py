"""`inferflux up`: broker, edge and workers as children of one process, watched, restarted and drained in order."""
