"""The sky of a set of pixels: clipped statistics and their errors."""
