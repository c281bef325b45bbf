"""FITS files and what an extra can read: headers, pixels, world coordinates."""
