"""Skies as input files of other programs."""
