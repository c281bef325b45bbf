"""Images as users have them: names, structure, headers, and good pixels."""
