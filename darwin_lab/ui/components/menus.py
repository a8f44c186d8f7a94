"""Menus, radios and tick boxes whose choices come and go with the pair and the child.

Gradio refuses a whole event, with an error in the page, when one of its inputs stands at a choice that is no longer
listed, as happens for a moment whenever a list changes. Here such a choice counts as not made. And `picking` is the one
event of a person's pick.
"""

from typing import Any

import gradio as gr


def on_offer(choices: list[tuple[str, Any]], picked: Any) -> Any:
    """What of `picked`, one value or a list, is among the values of `choices`; None for a single value that is not."""
    values = [value for _, value in choices]
    if isinstance(picked, list):
        return [value for value in picked if value in values]
    return picked if picked in values else None


def picking(control: Any) -> Any:
    """The event of a pick or a typed value in `control`, once for each. A drop-down's own `input` comes twice for one
    pick, and when the menu is only left; its `select` comes once, of the keyboard too (`menus.js`)."""
    single = isinstance(control, gr.Dropdown) and not control.multiselect
    return control.select if single else control.input


class Menu(gr.Dropdown):
    """A drop-down with choices that change."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """The pick, if it is still listed."""
        return super().preprocess(on_offer(self.choices, payload))


class Choice(gr.Radio):
    """A radio with choices that change."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """The pick, if it is still listed."""
        return super().preprocess(on_offer(self.choices, payload))


class Ticks(gr.CheckboxGroup):
    """Tick boxes that change."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """The ticked ones that are still listed."""
        return super().preprocess(on_offer(self.choices, payload))
