"""A folder that cannot be made is refused before any work, by whoever would write or plan it."""

from pathlib import Path

import pytest

from darwin_lab.cli import main
from darwin_lab.engine.places import check_place, existing
from darwin_lab.errors import LabError

CLOSED = [folder for folder in ("/proc", "/sys") if Path(folder).is_dir()]


def test_a_folder_can_be_made_deep_below_what_is_there(tmp_path: Path) -> None:
    check_place(tmp_path / "a" / "b" / "c")
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_put_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LabError, match=r"file is a file, so nothing can be put into it; choose another --out"):
        check_place(tmp_path / "file" / "a" / "b")


@pytest.mark.parametrize("place", CLOSED)
def test_a_plan_for_a_place_that_takes_no_files_says_so_before_it_reads_anything(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(tmp_path / "no father"), str(tmp_path / "no mother"), "--out", f"{place}/child"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"error: {place} cannot be written to; choose another --out\n")
