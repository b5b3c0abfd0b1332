"""Tests of the choice of a backend by measuring."""
