"""Floor 4: benchmark items and how a model answers them."""
