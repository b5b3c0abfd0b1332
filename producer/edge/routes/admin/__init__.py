"""Routes for administrators: one file for each resource."""
