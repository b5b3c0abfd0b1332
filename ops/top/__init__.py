"""`inferctl top`: what a running InferFlux does, reading by reading."""
