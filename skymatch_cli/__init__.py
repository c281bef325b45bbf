"""Equalise the sky background of overlapping FITS images."""

__version__ = "0.1.0"
