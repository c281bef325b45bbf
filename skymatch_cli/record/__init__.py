"""The only writer of FITS images: headers, subtraction, undo; whole files or nothing."""
