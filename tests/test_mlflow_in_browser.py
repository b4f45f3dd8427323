"""What a reviewer sees in MLflow, in a browser: real pages of the real server, over one store written from a journal.

`NAS_SCREENSHOTS=docs/images` also makes the documentation's pictures, of the search in NAS_SEARCH if that is set.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from common import ROOT
from playwright.sync_api import Browser, Page, Route, expect
from test_registry import BASELINE, FIRST, SECOND, THIRD, events, verified, write
from test_tracking import ask, told, trained

from nas import journal as journals
from nas.cli import main
from nas.journal import Event
from nas.tracking import rebuild, register
from nas.tracking.store import connect
from nas.types import Candidate, Held, Rejected

HOSTILE = (
    "</code></pre></td></table><script>alert(1)</script><img src=http://evil.example/i.png onerror=alert(1)>"
    "<iframe src=javascript:alert(1)></iframe><svg onload=alert(1)> ![i](http://evil.example/j.png)"
    " [link](javascript:alert(1)) [more](http://evil.example) <a href=javascript:alert(1)>a</a> https://evil.example/k"
    "\n```\n~~~\n# Heading\n| a | b |\n|---|---|\n\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07 **bold**\n"
)
SHOWN = "<img src=http://evil.example/i.png onerror=alert(1)>"  # somewhere on a page, as text
EVIL = ", ".join(
    ("img[src*='evil']", "iframe[src*='javascript']", "a[href*='evil']", "a[href*='javascript:']", "svg[onload]")
)
VIEW = "workflowType=machine_learning"  # as `nas ui` says it
SECONDS = 30_000


def journal() -> list[Event]:
    """A search whose candidates are of every kind, and one of which everything is hostile."""
    parent = SECOND
    found = events()
    for number in range(4, 9):
        candidate = Candidate(f"x = {number * 10}\n", "decay" if number % 2 else "skip", (parent.id,), "grammar")
        name = f"t{number:04d}"
        found += [ask(number, name, candidate, "search", 0.0), told(trained(name, candidate, 2.2 + number / 50), 0.0)]
    bad = Candidate(
        f'x = 90\n"""{HOSTILE}"""\n', HOSTILE, (FIRST.id, HOSTILE), HOSTILE, HOSTILE, HOSTILE, predicted_gain=0.1
    )
    certificate = replace(trained("t", bad, 1.0).certificate, checks={HOSTILE: HOSTILE})  # type: ignore[type-var]
    whole = replace(trained("t0009", bad, 2.6), certificate=certificate)
    rejected = replace(whole, id="t0010", outcome=Rejected(HOSTILE, HOSTILE), certificate=None)
    held = replace(whole, id="t0011", outcome=Held(HOSTILE, HOSTILE, whole.outcome))  # type: ignore[arg-type]
    for number, trial in ((9, whole), (10, rejected), (11, held)):
        asked = {**ask(number, trial.id, bad, "search", 0.0), "family": HOSTILE, "work": f"p{number}"}
        plan = {"notes": [HOSTILE], "lessons": [HOSTILE], "model": HOSTILE}
        found += [
            {"event": "draw", "work": f"p{number}", "operator": HOSTILE, "parents": [HOSTILE], "plan": plan},
            asked,
            {**told(trial, 0.0), "files": {"log": HOSTILE, "checkpoint": HOSTILE}},
            {"event": "opinion", "work": f"p{number}", "model": HOSTILE, "novelty": 1, "because": HOSTILE},
            {"event": "analysis", "trial": trial.id, "by": HOSTILE, "verdict": HOSTILE, "text": HOSTILE},
        ]
    review = {"event": "review", "trial": "t0011", "decision": "refuse", "by": HOSTILE, "why": HOSTILE}
    end = {"event": "end", "reason": HOSTILE, "best": "t0003", "summary": "The best is better."}
    return [*found, review, verified("t0009", HOSTILE, 0.01, against=HOSTILE), end]


@dataclass
class Served:
    """MLflow's server over a results folder."""

    results: Path
    address: str
    experiment: str

    def run(self, trial: str | None) -> str:
        """The run of a trial, or the search's own."""
        query = f"tags.`nas.trial` = '{trial}'" if trial else "tags.`nas.started` LIKE '%'"
        client = connect(f"sqlite:///{self.results / 'mlflow.db'}")
        (run,) = client.search_runs([self.experiment], query)
        return str(run.info.run_id)

    def url(self, place: str) -> str:
        return f"{self.address}/#/{place}{'&' if '?' in place else '?'}{VIEW}"

    def run_url(self, trial: str | None, tab: str = "") -> str:
        return self.url(f"experiments/{self.experiment}/runs/{self.run(trial)}{tab}")


@pytest.fixture(scope="module")
def served(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for the whole file: MLflow takes its time to start."""
    results = tmp_path_factory.mktemp("results")
    shutil.copy(empty_store, results / "mlflow.db")
    place = (f"sqlite:///{results / 'mlflow.db'}", results / "mlartifacts", "nas")
    if search := os.environ.get("NAS_SEARCH"):
        (results / "first").mkdir()
        shutil.copy(ROOT / search / "journal.jsonl", results / "first")
    else:
        write(results / "first", journal())
    written = journals.read(results / "first" / "journal.jsonl")
    assert rebuild(written, *place) == 0
    register([written], [], *place)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "nas", "ui", f"results_dir={results}", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None and server.stdout.readline().startswith("MLflow: http://127.0.0.1:")
        experiment = connect(place[0]).get_experiment_by_name("nas").experiment_id
        yield Served(results, f"http://127.0.0.1:{port}", experiment)
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """A page that reaches no other machine; at the end, that nothing tried to, and that nothing ran."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    # MLflow opens its assistant on a first visit.
    context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    foreign: list[str] = []
    dialogs: list[str] = []

    def gate(route: Route) -> None:
        url = route.request.url
        if url.startswith((served.address, "data:", "blob:")):
            route.continue_()
        else:
            foreign.append(url)
            route.abort()

    context.route("**/*", gate)
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(served.url("experiments"))
    yield page
    context.close()
    assert foreign == [] and dialogs == []


def open_view(page: Page, served: Served, name: str) -> None:
    page.goto(served.url(f"experiments/{served.experiment}/runs"))
    page.get_by_text("Views", exact=True).click()
    page.get_by_text(name).click()
    page.get_by_role("button", name=name).wait_for()


def show_whole_description(page: Page) -> None:
    if (more := page.get_by_text("Show more")).count():
        more.first.click()


def see(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.get_by_text(text).first).to_be_visible(timeout=SECONDS)


handwritten = pytest.mark.skipif("NAS_SEARCH" in os.environ, reason="of the hand-written search")


@handwritten
def test_candidates_are_found_by_their_tags_best_first(page: Page, served: Served) -> None:
    open_view(page, served, "Candidates, best first")
    see(page, re.compile("^t0003 "))
    see(page, "11 matching runs")
    names = page.get_by_role("link", name=re.compile(r"^t\d{4} "))
    highest = min(names.all(), key=lambda name: (name.bounding_box() or {"y": 1e9})["y"])
    assert highest.inner_text().startswith("t0003 decay"), "the best"
    search = page.get_by_placeholder(re.compile(r"^metrics\.rmse"))
    search.fill('tags.operator = "decay" and tags.certificate = "passed" and tags.parent.trial = "t0002"'.replace(
        "tags.parent.trial", "tags.`parent.trial`"))  # fmt: skip
    search.press("Enter")
    see(page, "3 matching runs")
    assert {name.inner_text()[:5] for name in names.all()} == {"t0003", "t0005", "t0007"}
    open_view(page, served, "Verified as better")
    see(page, "2 matching runs")


@handwritten
def test_a_candidates_page_has_what_a_person_decides_by(page: Page, served: Served) -> None:
    page.goto(served.run_url("t0003"))
    see(page, "Outcome:")
    show_whole_description(page)
    for text in (f"Change from {SECOND.id}", "-x = 3", "+x = 4", "no output moved | at all", "Learning curve"):
        see(page, text)
    see(page, re.compile(r"indistinguishable\. On seeds and text that no trial had it gains \+0\.2000 \[\+0\.1500"))
    expect(page.get_by_role("cell", name="causality").first).to_be_visible()


@handwritten
@pytest.mark.parametrize("trial", ["t0009", "t0010", "t0011"])
def test_hostile_text_is_shown_as_text(trial: str, page: Page, served: Served) -> None:
    page.goto(served.run_url(trial))
    see(page, "Outcome:")
    show_whole_description(page)
    see(page, SHOWN)
    page.wait_for_timeout(500)  # for what would load, or run
    assert page.locator(EVIL).count() == 0
    body = page.inner_text("body")
    assert "alert(1)" in body and "[link](javascript:alert(1))" in body and "\x1b" not in body
    if trial == "t0009":
        for file in ("log.txt", "candidate.py", "parent.diff", "certificate.json"):
            page.goto(served.run_url(trial, f"/artifacts/{file}"))
            see(page, re.compile(re.escape("onerror=alert(1)")))
            assert page.locator(EVIL).count() == 0, file


@handwritten
def test_the_searchs_page_says_what_was_found_and_who_waits(page: Page, served: Served) -> None:
    page.goto(served.run_url(None))
    see(page, "State:")
    show_whole_description(page)
    see(page, re.compile("verified as better .*: t0001, t0002"))
    see(page, "none: no interval")
    see(page, "The best is better.")
    assert page.locator(EVIL).count() == 0
    page.goto(served.run_url(None, "/artifacts/candidates.csv"))
    see(page, "fresh_mean")
    assert page.locator(EVIL).count() == 0


@handwritten
def test_runs_are_compared_side_by_side(page: Page, served: Served) -> None:
    runs = ",".join(f'"{served.run(trial)}"' for trial in ("t0001", "t0002", "t0003", "t0005"))
    page.goto(served.url(f'compare-runs?runs=[{runs}]&experiments=["{served.experiment}"]'))
    see(page, "Comparing 4 Runs from 1 Experiment")
    axes = page.locator(".js-plotly-plot .parcoords")
    expect(axes.first).to_be_visible(timeout=SECONDS)
    expect(page.locator(".js-plotly-plot").get_by_text("operator")).to_be_visible()
    page.get_by_role("tab", name="Scatter Plot").click()
    expect(page.locator(".js-plotly-plot .ytitle")).to_have_text("bits_per_byte", timeout=SECONDS)


@handwritten
def test_the_registry_is_written_over_http_and_shows_who_is_champion(page: Page, served: Served) -> None:
    given = [f"results_dir={served.results}", f"tracking.uri={served.address}"]
    decide = ["first", "t0001", "--by", "Ada", "--why", HOSTILE]
    assert main(["approve", *decide, *given]) == 0
    client = connect(served.address)
    assert client.get_model_version_by_alias("linear_attention", "champion").tags["trial"] == "t0001"
    assert client.get_model_version_by_alias("linear_attention", "candidate").tags["trial"] == "t0002"
    assert main(["audit", "registry", *given]) == 0
    assert len(client.search_model_versions("name = 'linear_attention'")) == 4
    page.goto(served.url("models/linear_attention"))
    for alias in ("champion", "candidate"):
        expect(page.get_by_role("status", name=alias, exact=True).first).to_be_visible(timeout=SECONDS)
    see(page, re.compile(r"better: \+0\.1500 bits per"))
    number = client.get_model_version_by_alias("linear_attention", "champion").version
    page.goto(served.url(f"models/linear_attention/versions/{number}"))
    see(page, re.compile("approved by Ada"))
    see(page, re.compile(re.escape("onerror=alert(1)")))
    for text in (FIRST.id, BASELINE.id):
        see(page, text)
    assert page.locator(EVIL).count() == 0
    assert THIRD.id not in page.inner_text("body"), "no ancestor"


@pytest.mark.skipif("NAS_SCREENSHOTS" not in os.environ, reason="NAS_SCREENSHOTS names the folder for pictures")
def test_pictures_for_the_documentation(page: Page, served: Served) -> None:
    folder = ROOT / os.environ["NAS_SCREENSHOTS"]

    def picture(name: str) -> None:
        page.wait_for_timeout(1500)  # what moves comes to rest
        path = folder / f"mlflow-{name}.png"
        page.screenshot(path=path)
        assert path.stat().st_size < 300_000

    open_view(page, served, "Candidates, best first")
    see(page, re.compile(r"^t\d{4} "))
    picture("runs")
    client = connect(f"sqlite:///{served.results / 'mlflow.db'}")
    found = client.search_runs(
        [served.experiment], "tags.purpose = 'search'", order_by=["metrics.bits_per_byte ASC"], max_results=7
    )
    page.goto(served.run_url(found[0].data.tags["nas.trial"]))
    see(page, "Outcome:")
    show_whole_description(page)
    picture("candidate")
    runs = ",".join(f'"{run.info.run_id}"' for run in found)
    page.goto(served.url(f'compare-runs?runs=[{runs}]&experiments=["{served.experiment}"]'))
    expect(page.locator(".js-plotly-plot .parcoords").first).to_be_visible(timeout=SECONDS)
    picture("compare")
    best = client.get_model_version_by_alias("linear_attention", "candidate").tags["trial"]
    signed = ["--by", "Ada Lovelace", "--why", "It holds on fresh seeds and untouched text."]
    assert main(["approve", "first", best, *signed, f"results_dir={served.results}", "tracking=mlflow"]) == 0
    page.goto(served.url("models/linear_attention"))
    champion = page.get_by_role("status", name="champion", exact=True).first
    champion.evaluate("element => element.closest('tr, [role=row]').scrollIntoView({block: 'start'})")
    picture("registry")
