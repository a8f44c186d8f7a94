"""Floor 7: the page."""
