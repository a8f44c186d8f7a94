"""Floor 1: checkpoints on disk and the anatomy of their tensors."""
