"""Clipped statistics of sets of pixels."""
