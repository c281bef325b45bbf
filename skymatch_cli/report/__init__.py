"""The HTML report (extra ``report``) and the figure (extra ``plot``)."""
