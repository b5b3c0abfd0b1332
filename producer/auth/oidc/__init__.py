"""Tokens of an OpenID Connect issuer: where its keys are, whether they signed, and what the claims open."""
