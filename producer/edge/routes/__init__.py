"""Thin handlers, one file per group of routes, and the table of them all (`table`)."""
