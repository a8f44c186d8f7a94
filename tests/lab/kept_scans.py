"""What tests of kept scans ask of a lab's store."""

from darwin_lab.lab.lab import Lab


def left_behind(lab: Lab) -> list[str]:
    """Everything in the store that is no whole kept scan."""
    known = {about.id for about in lab.saved.list()}
    return [path.name for path in (lab.store.home / "saved").glob("*") if path.name not in known]
