"""What keys, tenants and models may use over the whole fleet, counted in the broker by all edges together."""
