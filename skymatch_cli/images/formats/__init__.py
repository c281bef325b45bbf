"""File formats: FITS, and formats that need an extra package."""
