"""Images reduced to soft cells on the sky, and compared cell by cell."""
