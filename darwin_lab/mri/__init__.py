"""Floor 4: the Model MRI, what it prescribes, and the health check."""
