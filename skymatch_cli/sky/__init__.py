"""Geometry on the sky: WCS, footprints, overlaps, and the pixels of an overlap."""
