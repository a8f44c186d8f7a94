"""The house itself: rooms import only downwards, names stay in their room, and what is said twice says the same."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "darwin_lab"
FLOOR = {
    "errors": 0, "progress": 0, "locking": 0, "sizes": 0, "checkpoint": 1, "merging": 2, "genome": 2, "statistics": 2,
    "engine": 3, "mri": 4, "scoring": 4, "evolution": 5, "lab": 6, "ui": 7, "verbs": 7, "cli": 8, "__main__": 9,
    "__init__": 0,
}  # fmt: skip
BESIDE = {("merging", "genome"), ("mri", "statistics"), ("verbs", "lab")}


def imports() -> list[tuple[str, str, Path]]:
    """(room, room imported, file) for every import of our own inside the package, type checking included."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [(room, name.split(".")[1], path) for name in names if name.startswith("darwin_lab.")]
    return found


def test_every_room_imports_only_from_below_or_beside() -> None:
    for room, other, path in imports():
        below = FLOOR[other] < FLOOR[room]
        assert room == other or below or (room, other) in BESIDE, f"{path.relative_to(ROOT)} imports {other}"


def test_only_the_page_knows_gradio_and_only_the_upper_floors_the_store() -> None:
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        text = path.read_text()
        if room != "ui":
            assert not re.search(r"^\s*(import|from) gradio", text, re.MULTILINE), path
        if FLOOR[room] < FLOOR["lab"]:
            assert "sqlite3" not in text, path


def test_figures_draw_and_never_compute_statistics() -> None:
    for path in (PACKAGE / "ui" / "figures").glob("*.py"):
        assert "darwin_lab.statistics" not in path.read_text(), path


def test_the_readme_front_matter_is_space_yaml() -> None:
    front = (ROOT / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(front) == yaml.safe_load((ROOT / "space.yaml").read_text())


def test_the_pinned_gradio_is_the_spaces() -> None:
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().split())
    assert pins["gradio"] == yaml.safe_load((ROOT / "space.yaml").read_text())["sdk_version"]


def test_the_readme_has_exactly_two_set_up_commands() -> None:
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()))
def test_what_the_readme_links_to_is_there(link: str) -> None:
    assert link.startswith("http") or (ROOT / link).exists()


def test_every_module_says_what_it_is_for() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path
