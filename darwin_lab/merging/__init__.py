"""Floor 2: the arithmetic of a merge, and the recipe that decides it."""
