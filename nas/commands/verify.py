"""`nas verify SEARCH [--beside SEARCH ...]`: what a search is worth, by measurements that it did not choose by.

Contenders against tuned baselines, on fresh seeds and the test split, under several conditions; a verdict on each; what
every change of the winner's lineage contributes; and how the best verified value grew with the number of candidates,
beside other searches. Each measured piece is on disk before the next begins: given again, the command goes on.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from nas.ablation import Change, Kept, lineage, without
from nas.commands.containment import contained
from nas.commands.folder import Folder, events_of, folder_of
from nas.commands.measuring import at_a_time, kept_in, measure, origin, warm_boxes, write_report
from nas.commands.report import refresh
from nas.commands.shown import attach, show, show_registry, store_of
from nas.commands.verified import draw, markdown, table
from nas.configuration import settings_of, verifying
from nas.errors import UserError
from nas.journal import Event, Journal
from nas.piece import measure_piece
from nas.sandbox import Box
from nas.settings import CorpusSettings, Settings
from nas.space import SearchSpace, load_space
from nas.statistics import Interval, mean_interval
from nas.tasks.corpus import Corpus, CorpusError, prepare
from nas.terminal import make_console
from nas.trial import gate_arguments, memory_bytes, run_gate
from nas.types import Candidate, Trial
from nas.verify import (
    Comparison,
    Condition,
    Entrant,
    Piece,
    Scores,
    Verdict,
    best_rate,
    compare,
    conditions,
    entrants,
    equal_flops,
    fresh_seeds,
    guests_of,
    is_matched,
    record_holders,
    scores,
    test_piece,
    trained,
    trials_of,
    tuning_piece,
    verdicts,
)

_USAGE = "usage: nas verify SEARCH [--beside SEARCH ...] [overrides]"


def arguments(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """(search, those beside it, overrides) of a command line.

    Raises:
      UserError: with the usage.
    """
    overrides = [word for word in words[1:] if "=" in word and not word.startswith("-")]
    named = [word for word in words if word not in overrides]
    at = named.index("--beside") if "--beside" in named else len(named)
    searches, beside = named[:at], named[at + 1 :]
    if len(searches) != 1 or ("--beside" in named and not beside) or any(w.startswith("-") for w in searches + beside):
        raise UserError(_USAGE)
    return searches[0], beside, overrides


def verify(search: str, beside: Sequence[str], asked: Settings, overrides: Sequence[str]) -> int:
    """Measures, concludes, writes and shows. Returns 0.

    Args:
      asked: what `overrides` make of the defaults: how to verify, and where.

    Raises:
      UserError: with one sentence.
    """
    folders = [folder_of(name, Path(asked.results_dir)) for name in (search, *beside)]
    journal_events = [events_of(folder) for folder in folders]
    recorded = settings_of(journal_events[0][0]["config"])
    settings = verifying(recorded, asked, overrides, str(folders[0].path.resolve().parent))
    space = load_space(settings.search_space.module)
    first = _same_corpus(settings, folders, journal_events)
    second = _second_corpus(settings)
    trials = [trials_of(events) for events in journal_events]
    if not trained(trials[0], "search"):
        raise UserError(f"no candidate of {folders[0].path} was trained to the end: there is nothing to verify")
    console, began = make_console(), time.monotonic()
    with warm_boxes(space, *at_a_time(settings), contained(settings, console)) as boxes:
        bench = Bench(settings, space, [first.sha256], boxes, console)
        verification = Verification(settings, space, bench, first, second, trials, guests_of(journal_events[0]))
        found = verification.run([folder.name for folder in folders])
        minutes = (time.monotonic() - began) / 60
        report = {**origin(f"nas verify {search}", _as_given(beside, overrides), boxes, minutes), **found}
    report["corpora"] = [{"name": c.name, "sha256": c.sha256} for c in (first, second) if c]
    path = write_report(settings, f"{folders[0].name}/verification", report, markdown(report))
    figure = draw(report, path.with_suffix(".svg"))
    _hand_back(folders[0], report)
    _show(folders[0], journal_events[0][0], [path, figure], settings, overrides, console)
    refresh(folders[0], settings, overrides, console)
    _copy([path, path.with_suffix(".json"), figure], settings.verify.copy_to, folders[0].name)
    console.print("\n".join([*table(report), f"written to {path}"]), markup=False, soft_wrap=True)
    return 0


def _as_given(beside: Sequence[str], overrides: Sequence[str]) -> list[str]:
    return [*(["--beside", *beside] if beside else []), *overrides]


def _same_corpus(settings: Settings, folders: Sequence[Folder], journal_events: Sequence[Sequence[Event]]) -> Corpus:
    """The corpus of all these searches.

    Raises:
      CorpusError: if it is no longer the text that they saw.
      UserError: if the searches do not compare.
    """
    corpus = prepare(settings.corpus, Path(settings.results_dir) / ".cache")
    corpus.require_windows(settings.train.time)
    alike = ("model", "train", "task", "search_space")
    first = journal_events[0][0]
    for folder, events in zip(folders, journal_events, strict=True):
        if events[0]["corpus"]["sha256"] != corpus.sha256:
            raise CorpusError(f"the corpus is no longer that of {folder.name}: what it found can't be verified on it")
        if differing := [name for name in alike if events[0]["config"].get(name) != first["config"].get(name)]:
            raise UserError(f"{folder.name} has another {differing[0]} than {folders[0].name}: they do not compare")
    return corpus


def _second_corpus(settings: Settings) -> Corpus | None:
    verify = settings.verify
    if verify.corpus == "none":
        return None
    corpus = prepare(CorpusSettings(verify.corpus, verify.path), Path(settings.results_dir) / ".cache")
    corpus.require_windows(settings.train.time)
    return corpus


# Measuring


class Bench:
    """Measures pieces and gates sources, each once: what was measured before an interruption is not again."""

    def __init__(self, settings: Settings, space: SearchSpace, depends_on: Any, boxes: Sequence[Box], console: Console):
        self._settings = settings
        self._space = space
        self._boxes = boxes
        self._console = console
        self._path = kept_in(settings, "verify", depends_on)
        self._found: dict[str, Event] = {}
        self._gate = gate_arguments(settings, sorted(space.allowed_imports), known={}, reference_flops=None)

    def measured(self, pieces: Iterable[Piece], title: str) -> dict[str, Event]:
        """Key -> result of each piece (see `nas.piece`)."""
        return self._done({piece.key: piece for piece in pieces}, self._measure_piece, title)

    def gated(self, candidates: Iterable[Candidate]) -> dict[str, Event]:
        """Id -> {"certificate": {...}} or {"outcome": {...}} of each."""
        return self._done({candidate.id: candidate for candidate in candidates}, self._run_gate, "the gate")

    def _done(self, jobs: Mapping[str, Any], work: Callable[..., Event], title: str) -> dict[str, Event]:
        left = {key: job for key, job in jobs.items() if key not in self._found}
        if left:
            self._console.print(f"{title}: {len(left)} to measure", markup=False, soft_wrap=True)
            going_on = not self._found
            done = measure(self._path, left.items(), len(left), work, self._boxes, self._console, going_on)
            self._found |= done
        return {key: self._found[key] for key in jobs}

    def _measure_piece(self, piece: Piece, box: Box, scratch: Path) -> Event:
        return measure_piece(piece, self._settings, box, scratch)

    def _run_gate(self, candidate: Candidate, box: Box, scratch: Path) -> Event:
        budget = self._settings.budget
        verdict = run_gate(
            candidate.source, self._gate, box, scratch / "gate", budget.gate_seconds, memory_bytes(self._settings)
        )
        return {name: verdict[name] for name in ("certificate", "outcome") if name in verdict}


class Verification:
    """One verification, from who takes part to what is said of them, stage by stage.

    Args:
      second: the second corpus, if there is to be one.
      trials: of the search, and of those beside it.
      guests: of the search: a lineage may begin with one.
    """

    def __init__(
        self,
        settings: Settings,
        space: SearchSpace,
        bench: Bench,
        first: Corpus,
        second: Corpus | None,
        trials: Sequence[Sequence[Trial]],
        guests: Sequence[Trial],
    ):
        self._settings = settings
        self._bench = bench
        self._space = space
        self._trials = trials
        self._guests = guests
        self._seeds = fresh_seeds([trial for those in trials for trial in those], settings)
        self._entrants = entrants(trials[0], settings, space.baselines()[space.reference])
        self._conditions = conditions(settings, first, second)
        self._records = [record_holders(those) for those in trials]
        self._rates: dict[tuple[str, int], tuple[float, float] | None] = {}  # (candidate, width) -> rate, its bits
        self._scores: dict[tuple[str, str], Scores] = {}  # (candidate, condition) -> what it came to

    @property
    def _primary(self) -> Condition:
        return self._conditions[0]

    def run(self, names: Sequence[str]) -> dict[str, Any]:
        """The report as JSON values.

        Args:
          names: of the searches.
        """
        contenders = [entrant for entrant in self._entrants if entrant.role == "contender"]
        baselines = [entrant for entrant in self._entrants if entrant.role == "baseline"]
        verify = self._settings.verify
        holders = [
            Entrant(t.candidate, "record", t) for those in self._records for _, t in _last(those, verify.records)
        ]
        everybody = _once([*self._entrants, *holders])
        self._tune(everybody, self._primary, "learning rates")
        opponent = self._best(baselines)
        if opponent is None:
            raise UserError("no baseline could be trained with any learning rate: there is nothing to compare with")
        self._score(everybody, self._primary, "fresh seeds, longer")
        rivals = _once([*contenders, opponent])
        for condition in self._conditions[1:]:
            if condition.model != self._primary.model:
                self._tune(rivals, condition, "learning rates at the second width")
            self._score(rivals, condition, f"fresh seeds, {condition.name}")
        compared = [self._compared(contender, opponent) for contender in contenders]
        matched = [is_matched(self._of(c, self._primary), self._of(opponent, self._primary)) for c in contenders]
        concluded = verdicts(compared, matched, self._settings)
        winner = self._winner(contenders, compared, concluded)
        return {
            "search": names[0],
            "seeds": list(self._seeds),
            "windows": verify.windows,
            "grid": [self._settings.train.learning_rate * multiple for multiple in verify.grid],
            "level": verify.level,
            "correction": verify.correction,
            "train": asdict(self._settings.train),
            "conditions": [_condition(condition) for condition in self._conditions],
            "opponent": opponent.name,
            "rows": [self._row(entrant) for entrant in _once(self._entrants)],
            "verdicts": [
                _verdict(contender, comparisons, verdict, verify.level)
                for contender, comparisons, verdict in zip(contenders, compared, concluded, strict=True)
            ],
            "winner": winner.name,
            "ablations": self._ablations(winner),
            "curves": [
                self._curve(name, those, holders, opponent)
                for name, those, holders in zip(names, self._trials, self._records, strict=True)
            ],
        }

    # stages

    def _tune(self, those: Sequence[Entrant], condition: Condition, title: str) -> None:
        """The best learning rate of each, by validation."""
        pieces = {entrant.candidate.id: tuning_piece(entrant, condition, self._settings) for entrant in those}
        found = self._bench.measured(pieces.values(), title)
        for name, piece in pieces.items():
            self._rates[name, condition.model.width] = best_rate(piece, found[piece.key])

    def _score(self, those: Sequence[Entrant], condition: Condition, title: str) -> None:
        """Each at its learning rate on fresh seeds."""
        pieces = {}
        for entrant in those:
            rate = self._rates[entrant.candidate.id, condition.model.width]
            if rate is None:
                failed = Scores({}, 0, 0.0, 0.0, "it could not be trained with any learning rate")
                self._scores[entrant.candidate.id, condition.name] = failed
            else:
                pieces[entrant.candidate.id] = test_piece(entrant, condition, rate[0], self._seeds, self._settings)
        found = self._bench.measured(pieces.values(), title)
        for name, piece in pieces.items():
            self._scores[name, condition.name] = scores(piece, found[piece.key])

    def _compared(self, contender: Entrant, opponent: Entrant) -> list[Comparison]:
        """The comparisons of one contender, the primary one first."""
        level = self._settings.verify.level
        found = [
            compare(condition.name, self._of(contender, condition), self._of(opponent, condition), level)
            for condition in self._conditions
        ]
        ours, theirs = self._of(contender, self._primary), self._of(opponent, self._primary)
        if self._settings.verify.equal_flops and not (ours.failure or theirs.failure):
            condition = equal_flops(self._primary, ours.flops_per_token, theirs.flops_per_token)
            if condition:
                rate = self._rates[contender.candidate.id, condition.model.width]
                assert rate is not None
                piece = test_piece(contender, condition, rate[0], self._seeds, self._settings)
                measured = self._bench.measured([piece], f"equal FLOPs, {condition.steps} steps")
                found.append(compare(condition.name, scores(piece, measured[piece.key]), theirs, level))
        return found

    def _ablations(self, winner: Entrant) -> list[dict[str, Any]]:
        """What the winner is worth without each change of its lineage."""
        changes = lineage(winner.candidate, [*self._trials[0], *self._guests])[: self._settings.verify.ablations]
        taken_out: list[tuple[Change, Entrant | Kept]] = []
        for change in changes:
            merged = without(change, winner.candidate, self._space)
            taken_out.append((change, merged if isinstance(merged, Kept) else Entrant(merged, "ablation")))
        removed = [entrant for _, entrant in taken_out if isinstance(entrant, Entrant)]
        verdict = self._bench.gated([entrant.candidate for entrant in removed])
        sound = _once([entrant for entrant in removed if "certificate" in verdict[entrant.candidate.id]])
        self._tune(sound, self._primary, "learning rates of ablations")
        self._score(sound, self._primary, "fresh seeds, ablations")
        rows = []
        for change, entrant in taken_out:
            if isinstance(entrant, Kept):
                rows.append(_ablation(change, reason=entrant.reason))
            elif "certificate" not in verdict[entrant.candidate.id]:
                outcome = verdict[entrant.candidate.id]["outcome"]
                where = outcome.get("check") or outcome.get("cause")
                rows.append(_ablation(change, reason=f"rejected by {where}: {outcome['reason']}"))
            else:
                ours, theirs = self._of(winner, self._primary), self._of(entrant, self._primary)
                compared = compare(self._primary.name, ours, theirs, self._settings.verify.level)
                rows.append(_ablation(change, compared=compared, source=entrant.candidate.source))
        return rows

    # what was found

    def _of(self, entrant: Entrant, condition: Condition) -> Scores:
        return self._scores[entrant.candidate.id, condition.name]

    def _best(self, those: Sequence[Entrant]) -> Entrant | None:
        """The best by validation at its best learning rate: the test split chooses nobody."""
        tuned = [(rate[1], at) for at, entrant in enumerate(those) if (rate := self._rate(entrant))]
        return those[min(tuned)[1]] if tuned else None

    def _rate(self, entrant: Entrant) -> tuple[float, float] | None:
        return self._rates[entrant.candidate.id, self._primary.model.width]

    def _winner(
        self, contenders: Sequence[Entrant], compared: Sequence[Sequence[Comparison]], concluded: Sequence[Verdict]
    ) -> Entrant:
        """Of those that are better the one that gains most; where none is, the best by validation."""
        better = [
            (comparisons[0].gain.mean, -at)
            for at, (comparisons, verdict) in enumerate(zip(compared, concluded, strict=True))
            if verdict.word == "better" and comparisons[0].gain
        ]
        if better:
            return contenders[-max(better)[1]]
        return self._best(contenders) or contenders[0]

    def _row(self, entrant: Entrant) -> dict[str, Any]:
        rate, found = self._rate(entrant), self._of(entrant, self._primary)
        bits = mean_interval(list(found.by_seed.values())) if found.bits else None
        return {
            "name": entrant.name,
            "id": entrant.candidate.id,
            "role": entrant.role,
            "learning_rate": rate and rate[0],
            "validation_bits_per_byte": rate and rate[1],
            "bits_per_byte": _interval(bits),
            "params": found.params,
            "flops_per_token": found.flops_per_token,
            "tokens_per_second": found.tokens_per_second,
            "state_bytes": entrant.state_bytes,
            "failure": found.failure,
        }

    def _curve(
        self, name: str, trials: Sequence[Trial], holders: Sequence[tuple[int, Trial]], opponent: Entrant
    ) -> dict[str, Any]:
        """How the best so far grew with the candidates tried; the last record holders with their verified gain."""
        verified = {trial.id for _, trial in _last(holders, self._settings.verify.records)}
        records = []
        for tried, trial in holders:
            entrant = Entrant(trial.candidate, "record", trial)
            gain = None
            if trial.id in verified:
                ours, theirs = self._of(entrant, self._primary), self._of(opponent, self._primary)
                gain = compare(self._primary.name, ours, theirs, self._settings.verify.level).gain
            score = getattr(trial.outcome, "bits_per_byte", None)
            records.append({"tried": tried, "trial": trial.id, "bits_per_byte": score, "gain": _interval(gain)})
        return {"search": name, "tried": sum(t.purpose == "search" for t in trials), "records": records}


def _last(holders: Sequence[tuple[int, Trial]], count: int) -> Sequence[tuple[int, Trial]]:
    return holders[len(holders) - min(count, len(holders)) :]


def _once(those: Iterable[Entrant]) -> list[Entrant]:
    """Each candidate once, in the first of its roles."""
    found: dict[str, Entrant] = {}
    for entrant in those:
        found.setdefault(entrant.candidate.id, entrant)
    return list(found.values())


# As JSON values


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def _condition(condition: Condition) -> dict[str, Any]:
    return {
        "name": condition.name,
        "model": asdict(condition.model),
        "steps": condition.steps,
        "corpus": condition.corpus.name,
    }


def _comparison(compared: Comparison, level: float) -> dict[str, Any]:
    return {
        "condition": compared.condition,
        "says": compared.says(compared.p, level),
        "gain": _interval(compared.gain),
        "p": compared.p,
        "over_seeds": _interval(compared.over_seeds),
        "bootstrap": _interval(compared.bootstrap),
        "by_seed": compared.by_seed,
        "failure": compared.failure,
    }


def _verdict(contender: Entrant, compared: Sequence[Comparison], verdict: Verdict, level: float) -> dict[str, Any]:
    return {
        "name": contender.name,
        "id": contender.candidate.id,
        "trial": contender.trial.id if contender.trial else None,
        "verdict": verdict.word,
        "p": verdict.p,
        "why": verdict.why,
        "comparisons": [_comparison(each, level) for each in compared],
    }


def _ablation(
    change: Change, reason: str | None = None, compared: Comparison | None = None, source: str | None = None
) -> dict[str, Any]:
    return {
        "trial": change.trial,
        "operator": change.operator,
        "candidate": change.child.id,
        "reason": reason or (compared.failure if compared else None),
        "effect": _interval(compared.gain) if compared else None,
        "source": source,
    }


# Handed back


def _hand_back(folder: Folder, report: Mapping[str, Any]) -> None:
    """Verdicts and effects to the search's journal, each once.

    A resumed search takes the effects into the credit of its operators.
    """
    known = events_of(folder)
    credited = [(event["winner"], event["candidate"]) for event in known if event["event"] == "ablation"]
    bare = [{name: value for name, value in event.items() if name != "time"} for event in known]
    events = [e for e in _events(report) if e not in bare and (e.get("winner"), e.get("candidate")) not in credited]
    with closing(Journal(folder.journal)) as journal:
        for event in events:
            journal.append(event)


def _show(
    folder: Folder,
    begun: Event,
    files: Sequence[Path],
    settings: Settings,
    overrides: Sequence[str],
    console: Console,
) -> None:
    """The verdicts and the report to MLflow, if the search is shown there: its runs, its files and the registry."""
    if settings.tracking.kind == "none":
        return
    place = (*store_of(settings), settings.tracking.experiment)
    troubles = show(folder, place) or attach(begun, files, place)
    if not troubles:
        _, troubles = show_registry(Path(settings.results_dir), settings, overrides)
    for trouble in troubles:
        console.print(trouble, markup=False, soft_wrap=True)


def _events(report: Mapping[str, Any]) -> list[Event]:
    found: list[Event] = []
    for verdict in report["verdicts"]:
        gain = verdict["comparisons"][0]["gain"]
        told = {"trial": verdict["trial"], "verdict": verdict["verdict"], "p": verdict["p"], "gain": gain}
        found.append({"event": "verified", **told, "against": report["opponent"]})
    for ablation in report["ablations"]:
        if ablation["effect"]:
            told = {name: ablation[name] for name in ("trial", "operator", "candidate", "effect")}
            found.append({"event": "ablation", **told, "winner": report["winner"]})
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def _copy(files: Sequence[Path], folder: str | None, name: str) -> None:
    """Copies of the report as FOLDER/verification-NAME.*"""
    if folder is None:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, Path(folder) / f"verification-{name}{file.suffix}")
    except OSError as error:
        raise UserError(f"verify.copy_to={folder} can't be written: {error.strerror}") from error
