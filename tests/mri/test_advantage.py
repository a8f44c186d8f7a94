import numpy as np
import pytest
from made_scans import LAYERS, made_scan, with_importance

from darwin_lab.errors import LabError
from darwin_lab.mri.advantage import advantage, golden_layers, probe_weights


def test_a_model_has_no_advantage_over_itself():
    scan = made_scan()
    found = advantage(scan, scan)
    assert not found.values.any()
    assert not found.different.any()
    assert golden_layers(scan, scan) == ()


def test_above_zero_favours_the_father_and_swapping_parents_changes_the_sign():
    father = with_importance(made_scan(1), "loss", "MATH", 2, 3.0)
    mother = made_scan(2, name="mother")
    found = advantage(father, mother)
    assert found.probes == ("MATH", "CODE")
    assert found.values[0, 2] == pytest.approx(2.0, abs=0.05)
    assert found.different.tolist() == [[False, False, True, False], [False] * LAYERS]
    assert advantage(mother, father).values == pytest.approx(-found.values)


def test_what_happens_on_neutral_text_too_is_no_advantage():
    father = made_scan(1)
    for probe in ("MATH", "CODE", "NEUTRAL"):
        father = with_importance(father, "loss", probe, 1, 3.0)
    found = advantage(father, made_scan(2, name="mother"))
    assert abs(found.values[:, 1]).max() < 0.05


def test_noise_rarely_makes_any_cell_different():
    false = [
        advantage(made_scan(seed), made_scan(seed + 500, name="mother"), draws=200).different.any()
        for seed in range(40)
    ]
    assert np.mean(false) <= 0.2


def test_a_layer_where_the_mother_clearly_leads_is_golden_and_the_fathers_lead_is_not():
    mother = with_importance(
        with_importance(made_scan(2, name="mother"), "loss", "MATH", 3, 2.0), "loss", "CODE", 3, 2.0
    )
    assert golden_layers(made_scan(1), mother) == (3,)
    assert golden_layers(mother, made_scan(1)) == ()


def test_weights_are_uniform_over_the_skills_and_bad_ones_are_refused():
    assert probe_weights(("A", "B", "NEUTRAL")) == {"A": 0.5, "B": 0.5}
    assert probe_weights(("NEUTRAL",)) == {"NEUTRAL": 1}
    assert probe_weights(("A", "B"), {"A": 3, "B": 1}) == {"A": 0.75, "B": 0.25}
    for bad in ({"C": 1}, {"A": -1, "B": 2}, {"A": 0}):
        with pytest.raises(LabError):
            probe_weights(("A", "B"), bad)


def test_an_unknown_measure_is_refused():
    with pytest.raises(LabError, match="no measure"):
        advantage(made_scan(), made_scan(), measure="volume")
