"""Where images lie on the sky, what they share, and which of their pixels that is."""
