"""Searches by different policies, paired by seed."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fakes import make_settings, simulate, start

from nas.cli import main
from nas.commands.race import best_so_far, compared


def test_the_best_so_far_begins_with_the_best_baseline_and_ends_with_the_best() -> None:
    search, events = start(make_settings(trials=30))
    simulate(search)
    curve = best_so_far(events)
    ended = [e for e in events if e["event"] == "trial"]
    whole = [e for e in ended if e["outcome"].get("step") == e["budget"]["steps"] and "bits_per_byte" in e["outcome"]]
    bits = {
        purpose: [e["outcome"]["bits_per_byte"] for e in whole if e["purpose"] == purpose]
        for purpose in ("baseline", "search")
    }
    assert curve[0] == min(bits["baseline"]) and curve[-1] == min(bits["baseline"] + bits["search"])
    assert curve == sorted(curve, reverse=True) and 1 < len(curve) <= 31
    assert best_so_far([]) == []


def test_areas_and_their_differences_are_paired_by_seed() -> None:
    slow = [[3.0, 3.0, 2.0], [4.0, 4.0, 3.0, 1.0], [5.0, 5.0, 4.0]]
    fast = [[3.0, 2.0, 2.0], [4.0, 3.0, 3.0], [5.0, 4.0, 4.0]]
    report = compared({"fast": fast, "slow": slow}, [0, 1, 2])
    assert report["proposals"] == 2, "of the shortest search"
    first, second = report["policies"]
    assert first["areas"] == [2.0, 3.0, 4.0] and second["areas"] == [2.5, 3.5, 4.5]
    assert first["gain of the first"] is None
    assert second["gain of the first"].startswith("+0.5000 [+0.5000, +0.5000]"), "though seeds differ by more than that"
    assert second["best after"]["2"]["gain of the first"].startswith("+0.0000")


@pytest.mark.parametrize("words", [["race"], ["race", "one"], ["race", "one", "two", "--file"]])
def test_a_race_of_one_is_told_the_usage(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["meta", *words]) == 2
    assert "usage: nas meta" in capfd.readouterr().err


def searched(folder: Path, meta: str, seed: int, steps: int = 40) -> str:
    settings = replace(make_settings(meta, trials=12), seed=seed)
    search, events = start(settings)
    simulate(search)
    config = asdict(replace(settings, train=replace(settings.train, steps=steps)))
    path = folder / f"race-{meta}-{seed}"
    path.mkdir()
    lines = [{"event": "search", "config": config}, *events]
    (path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_finished_searches_become_a_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    searches = [searched(tmp_path, meta, seed) for meta in ("ducb", "uniform") for seed in (1, 2, 3)]
    searches.append(searched(tmp_path, "uniform", 4))  # which has no partner
    assert main(["meta", "race", *searches, f"results_dir={tmp_path}"]) == 0
    out = capfd.readouterr().out
    assert "3 seeds" in out and "gain of ducb" in out
    report = json.loads((tmp_path / "race.json").read_text())
    assert report["seeds"] == [1, 2, 3] and [one["policy"] for one in report["policies"]] == ["ducb", "uniform"]
    assert (tmp_path / "race.md").read_text().count("| uniform |") == 1


def test_searches_that_do_not_compare_are_refused_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, other = searched(tmp_path, "ducb", 1), searched(tmp_path, "uniform", 1)
    assert main(["meta", "race", first, other]) == 2
    assert "two are the least" in capfd.readouterr().err
    longer = searched(tmp_path, "uniform", 2, steps=80)
    assert main(["meta", "race", first, longer]) == 2
    assert "differ in model, training or corpus" in capfd.readouterr().err
    assert main(["meta", "race", first, str(tmp_path / "gone")]) == 2
    assert "there is no search in" in capfd.readouterr().err
