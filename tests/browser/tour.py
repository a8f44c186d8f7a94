"""How the browser tests look at the page: charts by their numbers, tables by their cells, jobs by the status bar."""

from typing import Any

DRAWN = "#{chart} .dl-chart[data-state='ready'] .main-svg"
SERIES = """chart => document.querySelector(`#${chart} .js-plotly-plot`)._fullData.map(t => ({
  name: t.name, type: t.type,
  x: t.x && Array.from(t.x), y: t.y && Array.from(t.y), z: t.z && Array.from(t.z, row => Array.from(row)),
  dash: t.line?.dash ?? null}))"""


def open_tab(page: Any, name: str) -> None:
    """Opens a tab; the Genome tab is open once its genes are there."""
    page.locator(f"#tab_{name}-button").click()
    if name == "genome":
        page.locator(".dl-gene").first.wait_for()


def open_part(page: Any, name: str) -> None:
    """Opens a part of the MRI tab: layers, experts or tensors."""
    page.locator(f"#mri_part_{name}-button").click()


def series(page: Any, chart: str) -> dict[str, dict[str, Any]]:
    """What a chart shows, by the name of the series, once it is drawn."""
    page.wait_for_selector(DRAWN.format(chart=chart))
    return {one["name"]: one for one in page.evaluate(SERIES, chart)}


def table(page: Any, name: str) -> list[list[str]]:
    """The cells of a table, row by row."""
    return page.eval_on_selector_all(
        f"#{name} tbody tr", "rows => rows.map(row => Array.from(row.cells, cell => cell.innerText.trim()))"
    )


def wait_until(page: Any, script: str, what: Any = None, timeout: float = 300_000) -> None:
    page.wait_for_function(script, arg=what, timeout=timeout)


def wait_idle(page: Any, timeout: float = 300_000) -> None:
    """Until the status bar says that nothing runs any more."""
    wait_until(page, "() => document.querySelector('.dl-status')?.dataset.state === 'idle'", timeout=timeout)


def wait_scanned(page: Any, timeout: float = 300_000) -> None:
    """Until both parents are scanned and advice is there: the child at hand is another one before."""
    wait_until(
        page,
        "() => document.querySelector('#scan_stamp textarea, #scan_stamp input')?.value.endsWith('True:True:False')",
        timeout=timeout,
    )


def settled_box(page: Any, selector: str) -> dict[str, float]:
    """Where a part lies, once two looks a third of a second apart agree: a chart beside it may still be giving way."""
    before, box = None, page.locator(selector).bounding_box()
    while box != before:
        page.wait_for_timeout(300)
        before, box = box, page.locator(selector).bounding_box()
    return box


def query(page: Any) -> dict[str, str]:
    """The query of the address bar."""
    return page.evaluate("() => Object.fromEntries(new URL(location.href).searchParams)")
