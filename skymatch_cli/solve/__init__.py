"""Differences to offsets and their errors: numpy and scipy only, no image is known here."""
