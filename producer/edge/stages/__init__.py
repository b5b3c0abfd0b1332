"""Steps of admission, one file each. Their order is in `producer.edge.admission`."""
