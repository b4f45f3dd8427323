"""What a search has learned, found from its journal; and carried into the next one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeSpace, make_settings, simulate, start

from nas.cli import main
from nas.commands.meta import arguments, first_prior, prior_of
from nas.errors import UserError
from nas.learned import Retold
from nas.meta import POLICIES, Measured, Posterior
from nas.settings import MetaSettings


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("kind", POLICIES)
def test_the_journal_tells_what_the_search_has_learned(kind: str, workers: int) -> None:
    settings = make_settings(kind, trials=40)
    search, events = start(settings)
    search.note({"event": "search", "prior": None})
    simulate(search, workers)
    told = Retold(events, settings, FakeSpace())
    assert told.posterior() == search.posterior()
    assert told.posterior().cells and told.posterior().measured


def test_every_choice_that_came_to_an_end_is_a_decision_with_its_context() -> None:
    search, events = start(make_settings(trials=40))
    simulate(search, 3)
    decisions = Retold(events, search.settings, FakeSpace()).decisions
    counted = sum(credit["pulls"] for credit in search._credit.policy.credit().values())
    assert 0 < counted <= len(decisions), "what is long past counts a little less"
    assert all(decision.weights[decision.operator] > 0 and decision.gain >= 0 for decision in decisions)
    contexts = {decision.contexts["decay"] for decision in decisions if decision.operator == "decay"}
    assert len(contexts) > 1 and all(len(context) == 1 for context in contexts)


def test_a_search_starts_from_an_earlier_ones_posterior_and_says_so() -> None:
    first, _ = start(make_settings(trials=40))
    simulate(first)
    second, events = start(make_settings(trials=10), prior=first.posterior())
    second.note({"event": "search", "prior": first.posterior().to_json()})
    before = second._credit.policy.credit()
    assert any(credit["pulls"] for credit in before.values())
    simulate(second)
    assert Retold(events, second.settings, FakeSpace()).posterior() == second.posterior()


def test_a_resumed_search_has_the_prior_that_its_journal_began_with() -> None:
    prior = Posterior({("decay",): (3.0, 1.0)}, (Measured({"decay": "off"}, 8, 3.5),))
    assert first_prior([{"prior": prior.to_json()["cells"]}], MetaSettings()) == replace(prior, measured=())
    assert first_prior([{"prior": prior.to_json()}], MetaSettings(prior="gone")) == prior
    assert first_prior([{"event": "search"}], MetaSettings(prior="new")) is None, "a journal of before there was one"


def exported(tmp_path: Path) -> Path:
    file = tmp_path / "posterior.json"
    file.write_text(json.dumps({"search": "s", **Posterior({("decay",): (3.0, 1.0)}).to_json()}))
    return file


def test_a_prior_is_a_file_or_nothing(tmp_path: Path) -> None:
    assert prior_of(MetaSettings()) is None
    assert prior_of(MetaSettings(prior=str(exported(tmp_path)))) == Posterior({("decay",): (3.0, 1.0)})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no such file or search"),
        ("nonsense", "is no file of nas meta export"),
        ('{"cells": 3}', "is no file of nas meta export"),
        ("[]", "is no file of nas meta export"),
    ],
)
def test_a_prior_that_is_none_is_refused_in_one_sentence(content: str | None, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "posterior.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=rf"^meta\.prior={file}.* {sentence}"):
        prior_of(MetaSettings(prior=str(file)))


@pytest.mark.parametrize("words", [[], ["export"], ["compare", "a", "b"], ["show", "a"], ["export", "a", "--file"]])
def test_a_wrong_command_line_is_told_the_usage(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"^usage: nas meta"):
        arguments(words)


def test_a_folder_without_a_search_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for action in ("export", "compare"):
        assert main(["meta", action, str(tmp_path)]) == 2
        assert "there is no search in" in capfd.readouterr().err
