"""What is allowed, by the configuration file and by the stored document together."""
