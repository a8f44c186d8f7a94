"""Floor 3: tensors by name, layer sweeps, resident models, export."""
