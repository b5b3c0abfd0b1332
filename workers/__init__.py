"""What consumes requests: intake, engine, KV and the runners that own a device."""
