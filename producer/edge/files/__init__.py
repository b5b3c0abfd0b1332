"""Files that are left for later use: taken in, listed, given back."""
