"""Starts Darwin Lab's page: opens the lab's store, launches, and begins the family's scan in the background.

Host and port come from the environment (`GRADIO_SERVER_NAME`, `GRADIO_SERVER_PORT`).
"""

import logging
import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.ui.components.head import page_head
from darwin_lab.ui.page import build
from darwin_lab.ui.theme import STYLE_SHEET, lab_theme


def open_family(lab: Lab) -> Pair | None:
    """The embedded family; None, with a line in the log, when its files are missing."""
    try:
        return lab.family_pair()
    except LabError as error:
        logging.getLogger(__name__).warning("the embedded family cannot be opened: %s", error)
        return None


lab = Lab()
family = open_family(lab)
demo = build(lab, family)
demo.queue(default_concurrency_limit=8)

if __name__ == "__main__":
    demo.launch(
        theme=lab_theme(),
        css_paths=[STYLE_SHEET],
        head=page_head(),
        footer_links=[],
        run_history=False,
        state_session_capacity=200,
        max_file_size="50mb",
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    if family is not None:
        lab.request_scan(family)
    demo.block_thread()
