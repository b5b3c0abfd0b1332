"""What `inferctl bus` shows of the broker."""
