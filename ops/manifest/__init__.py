"""The manifest: a file whose list of models every edge follows, and writes into the registry."""
