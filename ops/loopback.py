"""Hosts that only this machine can reach, and the key that may be used there."""

from schemas.loopback import is_loopback

__all__ = ["DEV_KEY", "is_loopback"]

# Well known, so it is accepted on a loopback host only, and only while no other key is configured.
DEV_KEY = "dev-key-123"
