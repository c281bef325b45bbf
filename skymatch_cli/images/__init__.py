"""FITS files as users have them: names, structure, headers, and the pixels that count."""
