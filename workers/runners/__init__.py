"""One package or module per backend, behind the interface of `base`."""
