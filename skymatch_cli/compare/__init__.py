"""Overlaps to differences: pooled statistics, or meshes of cells."""
