"""Offline batches: lines taken from the broker and answered while there is nothing better to do."""
