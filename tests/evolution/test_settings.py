"""Settings: what is refused, and that JSON brings them back."""

import json

import pytest

from darwin_lab.errors import LabError
from darwin_lab.evolution.settings import EvolutionSettings, settings_from_json


def test_settings_come_back_from_json_as_they_were() -> None:
    settings = EvolutionSettings(
        layout="v4", start="genome", start_genes={"attn": 0.25}, frozen=("ffn",), controls=("random",), popsize=8
    )
    assert settings_from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_blocks_routers_and_options_come_back_from_json_too() -> None:
    settings = EvolutionSettings(
        layout="v5", blocks=((0, 9), (10, 11)), router=("B", "A"), operator="della", options={"lambda": 1.2},
        experts="usage",
    )  # fmt: skip
    assert settings_from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert {"router", "options", "experts"} <= set(settings.choices())


def test_fields_left_out_keep_their_default() -> None:
    assert settings_from_json({"budget": 10}) == EvolutionSettings(budget=10)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"budget": 1}, "budget"),
        ({"budget": 2.5}, "budget"),
        ({"seed": -1}, "seed"),
        ({"sigma0": 0}, "sigma0"),
        ({"popsize": 1}, "popsize"),
        ({"blocks": [[0]]}, "blocks"),
        ({"blocks": True}, "blocks"),
        ({"patience": 0}, "patience"),
        ({"start": "magic"}, "magic"),
        ({"start": "genome"}, "start_genes"),
        ({"controls": ["luck"]}, "luck"),
        ({"speed": 3}, "speed"),
    ],
)
def test_settings_no_run_could_have_are_refused_by_name(data: dict, word: str) -> None:
    with pytest.raises(LabError, match=word) as caught:
        settings_from_json(data)
    assert "\n" not in str(caught.value)


def test_a_layouts_own_transplant_threshold_is_kept_unless_given() -> None:
    assert "transplant" not in EvolutionSettings().choices()
    assert EvolutionSettings(transplant=0.1).choices()["transplant"] == 0.1


def test_pinned_layers_stay_pinned_in_every_candidate_and_survive_json() -> None:
    settings = EvolutionSettings(pinned={3: 0.25})
    assert settings.choices()["pinned"] == {3: 0.25}
    assert settings_from_json(json.loads(json.dumps(settings.to_json()))) == settings
