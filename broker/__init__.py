"""Everything NATS: connection, names, streams, leases, journals, registry. The only package that imports `nats`."""
