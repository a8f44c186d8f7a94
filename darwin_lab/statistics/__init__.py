"""Floor 2: intervals and paired tests."""
