"""Damaged FITS files by the thousand, through the command line: ``python -m tests.fuzz --cases 20000``."""
