"""Floor 5: the search over genomes."""
