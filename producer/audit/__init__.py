"""Who did what: sealed records in a chain for each edge, in the broker and, where wanted, in a file."""
