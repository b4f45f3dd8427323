"""The report: what it says, that others' text stays text, and that a person can use it in a browser."""

import json
import random
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from fakes import FakeSpace, make_settings, simulate
from playwright.sync_api import Browser, Page, expect

from nas.cli import main
from nas.commands.folder import Folder
from nas.commands.report import account
from nas.errors import UserError
from nas.report import page, recursion
from nas.report.answers import answers
from nas.report.figures import FIGURES
from nas.report.figures.tree import layout
from nas.search import Search
from nas.types import Fitness, source_id

HOSTILE = (
    "</script><script>hacked = 1</script><img src=x onerror='hacked = 2'> <a href='javascript:hacked = 3'>link</a> "
    "{{ 7 * 7 }} ${7 * 7} \x1b[31m[red]\u202e \ud800 end"
)
CHARTS = ["progress", "tree", "river", "earnings", "front", "failures", "rungs", "costs", "occupancy"]


def journal(path: Path, trials: int = 60, **changes: object) -> Folder:
    """A search on no machine, its clock two seconds an event."""
    lines: list[str] = []

    def record(event: dict[str, object]) -> None:
        lines.append(json.dumps({**event, "time": 1_700_000_000 + 2 * len(lines)}))

    settings = make_settings("ducb", trials=trials, noise_seeds=2)
    corpus = {"name": "stdlib", "sha256": "ab" * 32}
    record({"event": "search", "config": asdict(settings), "corpus": corpus, "versions": {"jax": "0.7"}, **changes})
    search = Search(settings, FakeSpace(values=9), record)
    simulate(search, workers=3)
    record({"event": "end", "reason": search.end_reason, "best": None, "summary": ""})
    path.mkdir(parents=True)
    (path / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return Folder(path)


def edited(folder: Folder, change) -> None:
    events = [json.loads(line) for line in folder.journal.read_text().splitlines()]
    folder.journal.write_text("".join(f"{json.dumps(change(event) or event)}\n" for event in events))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return journal(tmp_path_factory.mktemp("results") / "first")


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """With a verification of its best, as `nas verify` writes it."""
    folder = journal(tmp_path_factory.mktemp("verified") / "second")
    found = account(folder, folder.path.parent)
    assert found.best
    gain = {"mean": 0.05, "low": 0.02, "high": 0.08, "count": 4}
    loss = {"mean": -0.01, "low": -0.03, "high": 0.01, "count": 4}
    comparison = {"gain": gain, "says": "better", "failure": None, "by_seed": {"1": 0.04, "2": 0.06}}
    verdict = {
        "name": "the winner",
        "id": found.best.candidate.id,
        "trial": found.best.id,
        "verdict": "better",
        "p": 0.003,
        "why": "it is better under the primary condition",
        "comparisons": [
            {**comparison, "condition": "longer"},
            {**comparison, "condition": "corpus", "gain": loss, "says": "indistinguishable"},
        ],
    }
    rival = {**comparison, "condition": "longer", "by_seed": {"1": 0.045, "2": 0.045, "3": 0.05}}
    other = {**verdict, "name": "another", "trial": "t9999", "id": "f" * 12, "comparisons": [rival]}
    last = found.path[-1]
    ablation = {"trial": last.trial, "operator": last.operator, "effect": gain, "reason": None}
    report = {
        "verdicts": [verdict, other],
        "ablations": [ablation],
        "winner": "the winner",
        "opponent": "strong",
        "minutes": 3,
    }
    (folder.path / "verification.json").write_text(json.dumps(report))
    return folder


def said(folder: Folder) -> dict[str, str]:
    found = answers(account(folder, folder.path.parent))
    return {answer.question.split()[-1]: " ".join([answer.short, *answer.because]) for answer in found}


# What it says


def test_five_questions_are_answered_with_their_uncertainty(folder: Folder) -> None:
    found, answered = account(folder, folder.path.parent), said(folder)
    assert found.best and found.best.candidate.id in answered["architecture?"]
    assert re.search(
        r"\d\.\d{4} \[\d\.\d{4}, \d\.\d{4}\] \(n=2\) bits per byte on fresh seeds", answered["architecture?"]
    )
    assert re.search(r"On 2 fresh seeds .* it gains .*\[.*\] \(n=2\)", answered["we?"])
    assert "nas verify first" in answered["we?"]
    assert all(change.trial in answered["better?"] for change in found.path)
    assert "device-minutes" in answered["cost?"] and "without an interval" in answered["cost?"]
    assert re.search(r"\d+ of 60 \(\d+% \[\d+%, \d+%\]\), most often: ", answered["most?"])


def test_a_verification_is_believed_before_the_search_itself(verified: Folder) -> None:
    answered = said(verified)
    assert "Verified: better. It gains +0.0500 [+0.0200, +0.0800] (n=4)" in answered["we?"]
    assert "p = 0.003" in answered["we?"] and "corpus: indistinguishable" in answered["we?"]
    assert (
        "Not told apart from t9999: +0.0050 [" in answered["we?"] and "(n=2) bits per byte, paired" in answered["we?"]
    )
    assert "By ablation" in answered["better?"] and "+0.0500 [+0.0200, +0.0800]" in answered["better?"]
    assert "The verification's last run took 3.0 minutes more" in answered["cost?"]


def test_a_search_that_found_nothing_says_so(tmp_path: Path) -> None:
    folder = journal(tmp_path / "empty", trials=1)
    edited(folder, lambda event: {"event": "skipped", "time": event["time"]} if event["event"] != "search" else event)
    answered = said(folder)
    assert answered["architecture?"].startswith("None") and "nothing to be sure of" in answered["we?"]
    html = page([account(folder, tmp_path)], "made by hand")
    assert html.count('class="missing"') == len(FIGURES)


def test_what_is_held_waits_until_a_person_has_decided(tmp_path: Path) -> None:
    folder = journal(tmp_path / "held", trials=10)
    trained = next(
        t for t in account(folder, tmp_path).trials if t.purpose == "search" and isinstance(t.outcome, Fitness)
    )

    def held(event):
        if event.get("id") == trained.id:
            event["outcome"] = {"kind": "held", "tripwire": "leap", "reason": "too good", "fitness": event["outcome"]}
            del event["outcome"]["fitness"]["kind"]

    edited(folder, held)
    assert [trial.id for trial in account(folder, tmp_path).waiting] == [trained.id]
    assert f"{trained.id}, held until" in page([account(folder, tmp_path)], "")
    word = {"event": "review", "trial": trained.id, "decision": "refuse", "by": "me", "why": "a leak", "time": 2e9}
    with folder.journal.open("a") as file:
        file.write(json.dumps(word) + "\n")
    assert account(folder, tmp_path).waiting == []
    assert f"{trained.id} refused by me: a leak" in page([account(folder, tmp_path)], "")


@pytest.mark.parametrize("shift", [3600, -3600], ids=["later", "on a machine whose clock is behind"])
def test_time_between_the_sessions_of_a_search_is_not_its_time(tmp_path: Path, shift: int) -> None:
    folder = journal(tmp_path / "long", trials=10)
    before = account(folder, tmp_path)
    seen = []

    def moved(event):
        seen.append(event)
        return {**event, "time": event["time"] + shift * (len(seen) > 30)}

    edited(folder, moved)
    lines = folder.journal.read_text().splitlines()
    resume = {"event": "resume", "overrides": [], "time": json.loads(lines[30])["time"]}
    folder.journal.write_text("\n".join([*lines[:30], json.dumps(resume), *lines[30:]]) + "\n")
    after = account(folder, tmp_path)
    assert after.minutes == pytest.approx(before.minutes, abs=0.1)
    assert [each.ended for each in after.attempts] == pytest.approx([each.ended for each in before.attempts], abs=0.1)


def test_a_clock_that_is_set_back_takes_no_time_away(tmp_path: Path) -> None:
    folder, seen = journal(tmp_path / "back", trials=10), []

    def moved(event):
        seen.append(event)
        return {**event, "time": event["time"] - 100 * (len(seen) > 30)}

    edited(folder, moved)
    found = account(folder, tmp_path)
    assert all(0 <= each.began <= each.ended <= found.minutes for each in found.attempts)
    ended = [each.ended for each in found.attempts]
    assert ended == sorted(ended)


def test_what_was_lost_is_told_with_the_notices(tmp_path: Path) -> None:
    folder = journal(tmp_path / "lost", trials=3)
    lines = folder.journal.read_text().splitlines()
    lost = [
        {"event": "lost", "trial": name, "reason": "its node was lost", "time": 1_700_000_002} for name in ("a", "b")
    ]
    folder.journal.write_text("\n".join([lines[0], *map(json.dumps, lost), *lines[1:]]) + "\n")
    assert list(account(folder, tmp_path).notices)[-1] == "its node was lost, 2 times (a, b)"


def test_the_tree_has_every_trained_candidate_once_and_a_parent_beside_its_children(folder: Folder) -> None:
    found = account(folder, folder.path.parent)
    nodes, edges = layout(found)
    trained = {t.candidate.id for t in found.trials if isinstance(t.outcome, Fitness) and t.purpose != "confirm"}
    assert len(nodes) == len(trained) and len({(node["depth"], node["row"]) for node in nodes}) == len(nodes)
    assert all(edge["to_depth"] == edge["depth"] + 1 for edge in edges)
    assert len(edges) == sum(node["depth"] > 0 for node in nodes)
    assert sum(edge["best"] for edge in edges) == len(found.path) > 0


def test_all_of_a_path_is_told(verified: Folder) -> None:
    html = page([account(verified, verified.path.parent)], "")
    assert html.count('<pre class="diff">') == len(account(verified, verified.path.parent).path)
    assert "Taken out of the winner, that loses +0.0500 [+0.0200, +0.0800] (n=4) bits per byte." in html


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda event: {k: v for k, v in event.items() if k != "config"}, "is damaged"),
        (lambda event: {**event, "outcome": {"kind": "fitness"}} if event["event"] == "trial" else event, "is damaged"),
        (lambda event: {**event, "time": None}, "is damaged"),
    ],
)
def test_a_damaged_journal_is_one_sentence(tmp_path: Path, damage, words: str) -> None:
    folder = journal(tmp_path / "broken", trials=3)
    edited(folder, damage)
    with pytest.raises(UserError, match=words):
        account(folder, tmp_path)


def test_a_damaged_verification_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = journal(tmp_path / "broken", trials=3)
    (folder.path / "verification.json").write_text("{}")
    assert main(["report", "broken", f"results_dir={tmp_path}"]) == 2
    assert "nas verify" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--what"], ["nothing"]])
def test_bad_use_is_one_sentence(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *words, f"results_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# Self-improvement


def test_the_five_measures_are_computed_from_the_records(folder: Folder, verified: Folder) -> None:
    first, second = (account(each, each.path.parent) for each in (folder, verified))
    table = recursion.table([second, first])
    rows = {row[0]: row[2:] for row in table.rows}
    assert list(rows) == ["adaptivity", "retention", "generalisation", "efficiency", "safety"]
    assert all(re.fullmatch(r"[+-][01]\.\d\d \[.*\] \(n=\d operators\)", value) for value in rows["adaptivity"])
    assert rows["retention"][0].startswith("nothing to retain") and rows["retention"][1].startswith("0 of 2 (0% [0%,")
    assert "corpus -0.0100 [-0.0300, +0.0100] (n=4)" in rows["generalisation"][0]
    assert rows["generalisation"][1] == "not known: not verified"
    assert all(re.match(r"\d+\.\d \(one search|not in", value) for value in rows["efficiency"])
    assert all(re.match(r"0 of \d+ \(0% \[0%, \d+%\]\)", value) for value in rows["safety"])


def test_what_was_verified_as_better_and_is_a_baseline_later_is_retained(folder: Folder, verified: Folder) -> None:
    earlier, later = (account(each, each.path.parent) for each in (verified, folder))
    kept = next(trial for trial in later.trials if trial.purpose == "baseline")
    verdict = {**earlier.verification["verdicts"][0], "id": kept.candidate.id}
    earlier.verification["verdicts"][0].update(verdict)
    assert recursion.table([earlier, later]).rows[1][3].startswith("1 of 2 (50%")


# In a browser


@pytest.fixture
def opened(browser: Browser, tmp_path: Path):
    """Opens a page offline, drawn; fails if it asks for anything but itself, opens a dialog or has an error."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    asked: list[str] = []
    wrong: list[str] = []

    def opened(html: str) -> Page:
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn=yes]", timeout=60_000)
        return page

    opened.wrong = wrong
    yield opened
    context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_every_chart_is_drawn_and_answers_a_person(opened, folder: Folder) -> None:
    page_ = opened(page([account(folder, folder.path.parent)], "made for a test"))
    assert page_.evaluate("Object.keys(views)") == CHARTS
    assert "can't be drawn" not in page_.inner_text("main")
    expect(page_.locator("#story")).to_be_hidden()

    mark = page_.locator('#tree [aria-roledescription="point"]').last
    mark.click(force=True)
    story = page_.locator("#story")
    expect(story).to_be_visible()
    trial = story.locator("h2").inner_text().split()[0]
    assert re.fullmatch(r"t\d{4}", trial)
    expect(story).to_contain_text("bits per byte")
    expect(story).to_contain_text("What it changed in its parent")
    assert story.locator("span.added").count() and story.locator("span.removed").count()
    page_.keyboard.press("Escape")
    expect(story).to_be_hidden()

    areas = page_.locator('#river [aria-roledescription="area mark"]')
    assert {area.get_attribute("opacity") for area in areas.all()} == {"1"}
    page_.locator("#river .role-legend-symbol path").first.click(force=True)
    expect(page_.locator('#river path[opacity="0.12"]').first).to_be_visible()
    assert [area.get_attribute("opacity") for area in areas.all()].count("1") == 1

    before = page_.locator("#progress svg.marks").inner_html()
    page_.locator("#progress select").select_option("device-minutes of training")
    page_.wait_for_function("before => document.querySelector('#progress svg.marks').innerHTML != before", arg=before)


def test_hostile_text_in_every_field_is_text(opened, tmp_path: Path) -> None:
    folder = journal(tmp_path / "hostile", name=HOSTILE)

    def soiled(event):
        for candidate in filter(None, [event.get("candidate")]):
            if candidate["operator"] != "baseline":
                candidate |= {"motivation": HOSTILE, "proposer": HOSTILE}
                candidate |= {"operator": HOSTILE} if int(candidate["id"], 16) % 4 == 0 else {}
                candidate["name"] = HOSTILE if int(candidate["id"], 16) % 3 == 0 else ""
        if event["event"] == "trial":
            event["outcome"] |= {key: HOSTILE for key in ("reason", "check", "cause") if key in event["outcome"]}
            event["certificate"] = {
                "checks": {HOSTILE: HOSTILE},
                "flops_per_token": 1,
                "params": 1,
                "state_bytes": 1,
                "exponents": {},
                "fingerprint": "f",
            }
        if event["event"] == "search":
            event |= {"versions": {HOSTILE: HOSTILE}, "corpus": {"name": HOSTILE, "sha256": HOSTILE}}
        event["reason"] = HOSTILE
        return {**event, "event": "notice"} if event["event"] == "noise" else event

    edited(folder, soiled)
    found = account(folder, tmp_path)
    assert found.best
    verdict = {
        "name": HOSTILE,
        "id": found.best.candidate.id,
        "trial": found.best.id,
        "verdict": HOSTILE,
        "p": 1.0,
        "why": HOSTILE,
        "comparisons": [{"condition": HOSTILE, "gain": None, "says": HOSTILE, "failure": HOSTILE}] * 2,
    }
    ablation = {"trial": found.path[-1].trial, "operator": HOSTILE, "effect": None, "reason": HOSTILE}
    told = {"verdicts": [verdict], "ablations": [ablation], "winner": HOSTILE, "opponent": HOSTILE}
    (folder.path / "verification.json").write_text(json.dumps(told))
    page_ = opened(page([account(folder, tmp_path)], HOSTILE))
    assert page_.evaluate("Object.keys(views)") == [chart for chart in CHARTS if chart != "rungs" or found.fidelity]
    assert "<img src=x onerror='hacked = 2'>" in page_.inner_text("main")
    page_.locator('#tree [aria-roledescription="point"]').last.click(force=True)
    expect(page_.locator("#story")).to_contain_text("<script>hacked = 1</script>")
    assert page_.evaluate("typeof hacked") == "undefined"
    assert page_.locator("main img, main a[href^=javascript], #story img, #story a").count() == 0
    assert "{{ 7 * 7 }}" in page_.inner_text("main")


def test_the_pages_own_policy_lets_no_other_script_run(opened, folder: Folder) -> None:
    """Were a text ever to become markup, nothing would come of it."""
    html = page([account(folder, folder.path.parent)], "made for a test")
    context_page = opened(html.replace("made for a test", "<b onclick='hacked = 1' id=trap>here</b>"))
    with pytest.raises(Exception, match="Content Security Policy"):
        context_page.add_script_tag(content="hacked = 2")
    context_page.locator("#trap").click()
    assert context_page.evaluate("typeof hacked") == "undefined"
    assert opened.wrong and all("Content Security Policy" in words for words in opened.wrong)
    opened.wrong.clear()


def test_several_searches_are_compared(opened, folder: Folder, verified: Folder) -> None:
    accounts = [account(each, each.path.parent) for each in (folder, verified)]
    page_ = opened(page(accounts, "", recursion.table(accounts)))
    assert page_.evaluate("Object.keys(views)") == ["comparison"]
    assert page_.locator(".answers").count() == 2 and page_.locator("#recursion tr").count() == 6
    page_.locator("#comparison select").select_option("device-minutes")
    with pytest.raises(UserError, match="two searches have one name"):
        page([accounts[0], accounts[0]], "")


def test_two_thousand_trials_open_in_seconds_and_a_few_megabytes(opened, folder: Folder, tmp_path: Path) -> None:
    """Each with three hundred random bytes of source of its own, more than two changes of a real one have."""
    rng, events = random.Random(0), [json.loads(line) for line in folder.journal.read_text().splitlines()]
    filler = {}

    def renamed(event, copy):
        event = json.loads(json.dumps(event))
        for key in ("id", "trial"):
            if key in event:
                event[key] = f"{event[key]}x{copy}"
        if candidate := event.get("candidate"):
            old = candidate["id"]
            if old not in filler:
                filler[old] = f'{candidate["source"]}\nfiller = "{rng.randbytes(150).hex()}"\n'
            candidate["source"] = f"{filler[old]}copy = {copy}\n"
            candidate["parents"] = [
                source_id(f"{filler[p]}copy = {copy}\n") for p in candidate["parents"] if p in filler
            ]
        return event

    lines = [renamed(event, copy) for copy in range(29) for event in events[1:-1]]
    big = tmp_path / "big"
    big.mkdir()
    whole = [events[0], *({**e, "time": events[0]["time"] + place} for place, e in enumerate(lines)), events[-1]]
    whole[-1]["time"] = whole[-2]["time"]
    (big / "journal.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in whole))
    found = account(Folder(big), tmp_path)
    assert len(found.trials) >= 2_000
    html = page([found], "")
    assert len(html.encode()) < 5_000_000
    page_ = opened(html)
    session = page_.context.new_cdp_session(page_)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # what other processes do is not counted
    page_.reload()
    page_.wait_for_selector("html[data-drawn=yes]", timeout=60_000)
    spent = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    assert spent["TaskDuration"] < 3, f"{spent['TaskDuration']:.1f} s of the browser until everything is drawn"
    assert page_.evaluate("Object.keys(views)") == CHARTS
