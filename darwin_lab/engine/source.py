"""What everything above works on: a thing that yields its tensors by name.

A checkpoint is one, a virtual child is one; nobody above this room needs to know which.
"""

from pathlib import Path
from typing import Any, Protocol

import torch


class Source(Protocol):
    """A model as named tensors. `folder` holds its config and tokenizer files; `fingerprint` names its content."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def fingerprint(self) -> str: ...
    def read(self, name: str) -> torch.Tensor:
        """The tensor `name` on the CPU, a copy of its own."""
        ...
