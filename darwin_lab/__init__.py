"""Darwin Lab: see inside two parent language models, breed them, check the child."""

__version__ = "0.1.0"
