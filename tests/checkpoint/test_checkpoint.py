"""Opening a checkpoint: what is whole is read lazily and exactly, what is not is refused with a remedy."""

import hashlib
import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.checkpoint import INDEX_FILE
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError

Trio = tuple[Path, Path, Path]


@pytest.fixture
def folder(tiny_llama_pair: Trio, tmp_path: Path) -> Path:
    """A copy of the tiny father that a test may damage."""
    return Path(shutil.copytree(tiny_llama_pair[0], tmp_path / "model"))


def shard(folder: Path) -> Path:
    """Splits the single weights file into two shards with an index; returns the second."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, folder / file)
    (folder / "model.safetensors").unlink()
    table = {name: file for file, members in parts.items() for name in members}
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder / "b.safetensors"


def test_every_tensor_reads_as_safetensors_reads_it(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    expected = load_file(folder / "model.safetensors")
    assert set(checkpoint.names) == set(expected)
    for name, tensor in expected.items():
        got = checkpoint.read(name)
        assert got.dtype == tensor.dtype
        assert torch.equal(got, tensor)


def test_a_read_tensor_is_a_copy_of_its_own(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    name = checkpoint.names[0]
    checkpoint.read(name).fill_(7)
    assert not torch.equal(checkpoint.read(name), torch.full_like(checkpoint.read(name), 7))


def test_shards_read_as_the_single_file_did(folder: Path) -> None:
    single = {name: open_checkpoint(folder).read(name) for name in open_checkpoint(folder).names}
    shard(folder)
    checkpoint = open_checkpoint(folder)
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in single.items())


def test_the_fingerprint_follows_the_content_not_the_place(folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    before = open_checkpoint(folder).fingerprint
    assert open_checkpoint(moved).fingerprint == before
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert open_checkpoint(moved).fingerprint != before


def damage_truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def damage_not_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_text("hello, I am a text file that is long enough to have a header")


def damage_pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")


def damage_absent_shard(folder: Path) -> None:
    shard(folder).unlink()


def damage_outside_shard(folder: Path) -> None:
    second = shard(folder)
    second.rename(folder.parent / "b.safetensors")
    index = folder / INDEX_FILE
    index.write_text(index.read_text().replace("b.safetensors", "../b.safetensors"))


def damage_index_out(folder: Path) -> None:
    shard(folder)
    index = folder / INDEX_FILE
    index.rename(folder.parent / "elsewhere.json")
    index.symlink_to(folder.parent / "elsewhere.json")


def damage_symlink_out(folder: Path) -> None:
    second = shard(folder)
    second.rename(folder.parent / "b.safetensors")
    second.symlink_to(folder.parent / "b.safetensors")


def damage_side_file_out(folder: Path) -> None:
    (folder.parent / "secret").write_text("{}")
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "generation_config.json").symlink_to(folder.parent / "secret")


def damage_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")


def write_header(folder: Path, header: str, data: int = 12) -> None:
    raw = header.encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(data))


def entry(start: object, end: object, dtype: object = "F32", shape: object = (2,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def damage_header_beyond_the_file(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[:8] = struct.pack("<Q", len(data) + 1)
    weights.write_bytes(data)


def damage_overlap(folder: Path) -> None:
    write_header(folder, json.dumps({"a": entry(0, 8), "b": entry(4, 12)}))


def damage_negative_offsets(folder: Path) -> None:
    write_header(folder, json.dumps({"a": entry(-8, 0)}))


def damage_float_offsets(folder: Path) -> None:
    write_header(folder, json.dumps({"a": entry(0.0, 8.0)}))


def damage_true_as_a_number(folder: Path) -> None:
    write_header(folder, json.dumps({"a": entry(False, 4, shape=[True])}))


def damage_backward_offsets(folder: Path) -> None:
    write_header(folder, json.dumps({"a": entry(8, 0)}))


def damage_endless_shape(folder: Path) -> None:
    write_header(folder, json.dumps({"a": entry(0, 8, shape=[1 << 62, 1 << 62])}))


def damage_unknown_dtype(folder: Path) -> None:
    write_header(folder, json.dumps({"a": entry(0, 8, dtype="F4")}))


def damage_entry_that_is_a_list(folder: Path) -> None:
    write_header(folder, json.dumps({"a": [1, 2]}))


def damage_name_of_two_lines(folder: Path) -> None:
    write_header(folder, json.dumps({"a\nError: none": entry(0, 4)}))


def damage_twice_in_one_file(folder: Path) -> None:
    row = json.dumps(entry(0, 8))
    write_header(folder, f'{{"a": {row}, "a": {row}}}')


def damage_duplicate(folder: Path) -> None:
    second = shard(folder)
    tensors = load_file(second)
    first = load_file(folder / "a.safetensors")
    save_file({**tensors, next(iter(first)): next(iter(first.values()))}, second)


def damage_index_that_lies(folder: Path) -> None:
    shard(folder)
    index = json.loads((folder / INDEX_FILE).read_text())
    name = next(iter(index["weight_map"]))
    other = {"a.safetensors": "b.safetensors", "b.safetensors": "a.safetensors"}
    index["weight_map"][name] = other[index["weight_map"][name]]
    (folder / INDEX_FILE).write_text(json.dumps(index))


def damage_index_that_is_short(folder: Path) -> None:
    shard(folder)
    index = json.loads((folder / INDEX_FILE).read_text())
    index["weight_map"].popitem()
    (folder / INDEX_FILE).write_text(json.dumps(index))


def contents(folder: Path) -> dict[str, str]:
    """Every file below `folder` and beside it, by the hash of what it holds."""
    files = [path for path in folder.parent.rglob("*") if path.is_file()]
    return {str(path): hashlib.blake2b(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_truncated, "truncated"),
        (damage_not_safetensors, "not a safetensors file"),
        (damage_pickle_only, "pickled"),
        (damage_absent_shard, "b.safetensors, named by"),
        (damage_outside_shard, "outside the folder"),
        (damage_symlink_out, "outside the folder"),
        (damage_index_out, "model.safetensors.index.json is a link that points outside the folder"),
        (damage_side_file_out, "generation_config.json is a link that points outside the folder"),
        (damage_no_config, "config.json"),
        (damage_huge_header, "not a safetensors file"),
        (damage_header_beyond_the_file, "not a safetensors file (no header found)"),
        (damage_negative_offsets, "entry of tensor a is not understood"),
        (damage_float_offsets, "entry of tensor a is not understood"),
        (damage_true_as_a_number, "entry of tensor a is not understood"),
        (damage_backward_offsets, "tensor a has -8 bytes"),
        (damage_endless_shape, "tensor a has 8 bytes where its shape needs"),
        (damage_unknown_dtype, "tensor a is F4, no plain number format"),
        (damage_entry_that_is_a_list, "entry of tensor a is not understood"),
        (damage_name_of_two_lines, r"names a tensor 'a\nError: none'"),
        (damage_twice_in_one_file, "tensor a twice"),
        (damage_index_that_lies, "which does not hold it"),
        (damage_index_that_is_short, "is not in model.safetensors.index.json"),
        (damage_overlap, "overlap"),
        (damage_duplicate, "both"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(folder: Path, damage, words: str) -> None:
    damage(folder)
    before = contents(folder)
    with pytest.raises(LabError) as caught:
        open_checkpoint(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


@pytest.mark.parametrize("ref", ["/no/such/folder", "family:uncle", "", "no/such/thing", "x" * 5000])
def test_what_is_no_model_is_refused_with_what_to_give(ref: str) -> None:
    with pytest.raises(LabError) as caught:
        open_checkpoint(ref)
    assert "family:father" in str(caught.value)


def test_a_hub_id_that_cannot_be_fetched_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args: object, **kwargs: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(LabError, match="neither a folder here nor could it be fetched"):
        open_checkpoint("some-org/some-model")


def test_a_folder_of_links_into_the_hubs_own_store_opens(folder: Path, tmp_path: Path) -> None:
    repo = tmp_path / "models--org--name"
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    shutil.move(folder, repo / "blobs")
    for path in (repo / "blobs").iterdir():
        (snapshot / path.name).symlink_to(path)
    assert open_checkpoint(snapshot).side_files == open_checkpoint(repo / "blobs").side_files
