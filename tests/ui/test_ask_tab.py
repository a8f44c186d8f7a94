"""The Ask tab's views: what a model wrote stays text, and every number has its unit."""

from darwin_lab.lab.chat import Reply
from darwin_lab.ui.tabs.ask import manner_of
from darwin_lab.ui.tabs.ask_views import answers_html, speed_table


def test_what_a_model_wrote_is_text_and_never_markup() -> None:
    told = answers_html([Reply("father", "Father: <b>x", "done", text="<script>1</script>", thought="<i>", tokens=3)])
    assert "<script>" not in told and "&lt;script&gt;" in told
    assert "<b>x" not in told and "<i>" not in told


def test_an_answer_under_way_shows_its_thought_and_its_speed() -> None:
    told = answers_html(
        [Reply("a1b2", "Child", "writing", thought="hm", tokens=5, prompt_tokens=9, first=0.5, speed=12.34)]
    )
    assert "<details open>" in told and "12.3 tokens/s, the first after 0.50 s" in told
    assert "dl-answer child" in told and "5 tokens after 9 of prompt" in told


def test_a_model_that_says_nothing_or_fails_says_so() -> None:
    told = answers_html([Reply("mother", "Mother", "done"), Reply("blend", "Blend", "failed", note="no template")])
    assert "It wrote nothing." in told and "could not answer · no template" in told


def test_speeds_carry_their_range_and_what_did_not_fit_is_blank() -> None:
    rows = [{"batch": 4, "reading": (1000.0, 900.0, 1100.0), "writing": (80.0, 70.0, 90.0)}]
    rows.append({"batch": 16, "reading": None, "writing": None})
    cells = [row["cells"] for row in speed_table(rows, "none")["rows"]]
    assert cells[0] == [4, "1,000 [900, 1,100]", "80 [70, 90]", 20.0]
    assert cells[1] == [16, None, None, None]


def test_the_controls_become_a_manner() -> None:
    manner = manner_of(50, 0.7, None, "plain", "auto")
    assert (manner.max_new_tokens, manner.temperature, manner.seed, manner.chat, manner.thinking) == (
        50,
        0.7,
        0,
        False,
        None,
    )
