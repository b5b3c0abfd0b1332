"""Models of a hub that speaks Hugging Face's HTTP API: found, downloaded once, checked, and kept in the data directory.

Nothing here runs unless a model with an `hf:` source is configured, or loaded by an administrator.
"""
