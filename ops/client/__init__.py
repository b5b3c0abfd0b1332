"""The HTTP side of `inferctl`."""
