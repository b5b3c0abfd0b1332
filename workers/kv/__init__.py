"""Whose KV lies where, which of it is shared, and what is kept of sequences that have ended."""
