"""Logging in at the issuer that a server trusts, from a terminal."""
