"""Fixtures of the engine's tests."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture
def poisoned(tiny_llama_pair: tuple[Path, Path, Path], tmp_path: Path) -> tuple[Path, Path, Path]:
    """The tiny trio with one NaN in the mother."""
    mother = Path(shutil.copytree(tiny_llama_pair[1], tmp_path / "mother"))
    tensors = load_file(mother / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, mother / "model.safetensors")
    return tiny_llama_pair[0], mother, tiny_llama_pair[2]
