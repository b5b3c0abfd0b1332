"""Hosts that only this machine can reach, and the key that may be used there."""

import ipaddress

# Well known, so it is accepted on a loopback host only, and only while no other key is configured.
DEV_KEY = "dev-key-123"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
