"""Readers of slide files, and the order in which they are asked."""
