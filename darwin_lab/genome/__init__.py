"""Floor 2: the few numbers that are searched or hand-tuned."""
