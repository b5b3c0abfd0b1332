"""Which backend computes a model fastest on this machine: tried once, for some seconds, and remembered."""
