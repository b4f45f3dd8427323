"""What verification compares, and what it concludes. Pure: the measuring is `nas.piece`'s.

Everybody, baselines included, is tuned over the same learning rates at the search's own seed, judged on validation.
Then everybody is trained with the same fresh seeds, which fix the initial parameters' draw and the batches, and scored
on the test split, which no search touches. So differences are paired by seed and by window of text.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from nas.archive import rank_key
from nas.journal import Event
from nas.settings import ModelSettings, Settings, TrainSettings
from nas.statistics import (
    CORRECTIONS,
    Interval,
    hierarchical_bootstrap,
    mean_interval,
    mean_over_seeds_and_text,
)
from nas.tasks.corpus import Corpus
from nas.types import Candidate, Fitness, Held, Trial, trial_from_json

PRIMARY = "longer"
MATCHED = 0.02  # relative difference of parameters, and of FLOPs, that counts as none
_RESOLUTION = 1e-4  # bits per byte: a smaller gain is none, however certain


# Who


@dataclass(frozen=True)
class Entrant:
    """One architecture of a verification.

    Attributes:
      trial: by which the search knows it; None for one that the search did not train.
      role: "contender" | "baseline" | "record" (of a discovery curve) | "ablation".
    """

    candidate: Candidate
    role: str
    trial: Trial | None = None

    @property
    def name(self) -> str:
        """For people."""
        if self.candidate.name:
            return self.candidate.name
        trial = f"{self.trial.id} " if self.trial else ""
        return f"{trial}{self.candidate.operator} {self.candidate.id}"

    @property
    def state_bytes(self) -> int | None:
        """Of one mixer's decoding state at batch 1, by its certificate."""
        return self.trial.certificate.state_bytes if self.trial and self.trial.certificate else None


def trials_of(events: Iterable[Event]) -> list[Trial]:
    """The finished trials of a journal, in its order; what was held and then accepted counts as a score."""
    trials: dict[str, Trial] = {}
    for event in events:
        if event["event"] == "trial":
            trials[event["id"]] = trial_from_json(event)
        elif event["event"] == "review" and event["decision"] == "accept" and event["trial"] in trials:
            trial = trials[event["trial"]]
            if isinstance(trial.outcome, Held):
                trials[trial.id] = replace(trial, outcome=trial.outcome.fitness)
    return list(trials.values())


def guests_of(events: Iterable[Event]) -> list[Trial]:
    """Other searches' trials that a journal's search took in: they may stand in a lineage, and are no result of it."""
    return [trial_from_json(event) for event in events if event["event"] == "guest"]


def trained(trials: Iterable[Trial], purpose: str) -> list[Trial]:
    """Those that were trained to the end, best first, one for each candidate."""
    whole = [
        trial
        for trial in trials
        if trial.purpose == purpose and isinstance(trial.outcome, Fitness) and trial.outcome.step >= trial.budget.steps
    ]
    return list({trial.candidate.id: trial for trial in sorted(whole, key=rank_key, reverse=True)}.values())[::-1]


def entrants(trials: Sequence[Trial], settings: Settings, reference: Candidate) -> list[Entrant]:
    """The search's best candidates, its best baselines, and the space's reference."""
    contenders = trained(trials, "search")[: settings.verify.contenders]
    baselines = trained(trials, "baseline")
    chosen = {trial.candidate.id: trial for trial in baselines[: settings.verify.baselines]}
    chosen |= {trial.candidate.id: trial for trial in baselines if trial.candidate.id == reference.id}
    found = [Entrant(trial.candidate, "contender", trial) for trial in contenders]
    found += [Entrant(trial.candidate, "baseline", trial) for trial in chosen.values()]
    return found if reference.id in chosen else [*found, Entrant(reference, "baseline")]


def record_holders(trials: Iterable[Trial]) -> list[tuple[int, Trial]]:
    """(number of candidates tried by then, trial) of each candidate that was the best so far when its trial ended."""
    holders: list[tuple[int, Trial]] = []
    tried = 0
    for trial in trials:
        tried += trial.purpose == "search"
        outcome = trial.outcome
        whole = isinstance(outcome, Fitness) and outcome.step >= trial.budget.steps
        if trial.purpose == "search" and whole and (not holders or rank_key(trial) < rank_key(holders[-1][1])):
            holders.append((tried, trial))
    return holders


def fresh_seeds(trials: Iterable[Trial], settings: Settings) -> tuple[int, ...]:
    """Training seeds beyond all that any trial had: nothing was chosen by them."""
    first = max((trial.budget.seed for trial in trials), default=settings.train.seed) + 1
    return tuple(
        range(max(first, settings.train.seed + 1), max(first, settings.train.seed + 1) + settings.verify.seeds)
    )


# What is measured


@dataclass(frozen=True)
class Condition:
    """Under what everybody is compared.

    Attributes:
      name: "longer" (the primary one) | "wider" | "corpus" | "equal_flops".
    """

    name: str
    model: ModelSettings
    steps: int
    corpus: Corpus


def conditions(settings: Settings, first: Corpus, second: Corpus | None) -> list[Condition]:
    """Those that are the same for everybody, the primary one first."""
    verify, model = settings.verify, settings.model
    steps = max(1, round(verify.longer * settings.train.steps))
    found = [Condition(PRIMARY, model, steps, first)]
    if verify.widen > 1:
        wide = replace(model, width=verify.widen * model.width, heads=verify.widen * model.heads)
        found.append(Condition("wider", wide, settings.train.steps, first))
    if second:
        found.append(Condition("corpus", model, settings.train.steps, second))
    return found


def equal_flops(primary: Condition, ours: float, theirs: float) -> Condition | None:
    """The primary condition with our steps scaled to their training FLOPs; None if they are as good as equal.

    Args:
      ours, theirs: forward FLOPs per token of the contender and of the baseline.
    """
    if abs(ours / theirs - 1) < MATCHED:
        return None
    return replace(primary, name="equal_flops", steps=max(1, round(primary.steps * theirs / ours)))


@dataclass(frozen=True)
class Piece:
    """What is measured at one go: an architecture, trained at each seed with each learning rate, scored on one split.

    Attributes:
      train: the settings of each training; its seed and learning rate are not looked at.
      certify: whether it is also looked at whether the certificate still holds.
    """

    candidate: Candidate
    model: ModelSettings
    train: TrainSettings
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    corpus: Corpus
    split: str
    windows: int
    certify: bool

    @property
    def runs(self) -> list[dict[str, Any]]:
        """{"name", "seed", "learning_rate"} of each training."""
        return [
            {"name": run_name(seed, rate), "seed": seed, "learning_rate": rate}
            for seed, rate in product(self.seeds, self.rates)
        ]

    @property
    def key(self) -> str:
        """Names everything that the result depends on, beside the engine's own sources."""
        train = {**asdict(self.train), "seed": 0, "learning_rate": 0.0}
        depends: list[Any] = [asdict(self.model), train, self.runs, self.corpus.sha256]
        depends += [self.split, self.windows, self.certify]
        return f"{self.candidate.id}/{hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]}"


def run_name(seed: int, rate: float) -> str:
    return f"seed{seed}-rate{rate:g}"


def tuning_piece(entrant: Entrant, condition: Condition, settings: Settings) -> Piece:
    """The grid of learning rates at the selection seed, for the search's steps, on validation."""
    rates = tuple(settings.train.learning_rate * multiple for multiple in settings.verify.grid)
    return Piece(
        entrant.candidate,
        condition.model,
        settings.train,
        (settings.train.seed,),
        rates,
        condition.corpus,
        "validation",
        settings.verify.windows,
        certify=False,
    )


def test_piece(entrant: Entrant, condition: Condition, rate: float, seeds: Sequence[int], settings: Settings) -> Piece:
    """The tuned learning rate at fresh seeds, on the test split."""
    return Piece(
        entrant.candidate,
        condition.model,
        replace(settings.train, steps=condition.steps),
        tuple(seeds),
        (rate,),
        condition.corpus,
        "test",
        settings.verify.windows,
        certify=True,
    )


# What was measured


@dataclass(frozen=True)
class Scores:
    """What a piece came to.

    Attributes:
      bits: training seed -> bits per byte of each window, at the one learning rate.
      failure: in a sentence, if a training diverged, or a certificate no longer holds; then no number counts.
    """

    bits: Mapping[int, Sequence[float]]
    params: int
    flops_per_token: float
    tokens_per_second: float
    failure: str | None = None

    @property
    def by_seed(self) -> dict[int, float]:
        return {seed: sum(windows) / len(windows) for seed, windows in self.bits.items()}


def scores(piece: Piece, found: Event) -> Scores:
    """The result of a piece with one learning rate."""
    if "runs" not in found:
        return Scores({}, 0, 0.0, 0.0, failure_of(found))
    by_seed = {run["seed"]: found["runs"][run["name"]] for run in piece.runs}
    failure = next((f"seed {seed}: {run['failure']}" for seed, run in by_seed.items() if run.get("failure")), None)
    bits = {seed: run["bits"] for seed, run in by_seed.items()} if failure is None else {}
    return Scores(bits, found["params"], found["flops_per_token"], found["tokens_per_second"], failure)


def failure_of(found: Event) -> str:
    """Why a piece came to nothing."""
    outcome = found["outcome"]
    lines = [line for line in outcome["reason"].splitlines() if line.strip("- ")]
    return f"{outcome.get('cause') or outcome.get('check')}: {lines[-1] if lines else ''}"


def best_rate(piece: Piece, found: Event) -> tuple[float, float] | None:
    """(learning rate, mean bits per byte) of the best of a grid; None if every one failed."""
    means = [
        (sum(bits) / len(bits), run["learning_rate"])
        for run in piece.runs
        if (bits := found.get("runs", {}).get(run["name"], {}).get("bits"))
    ]
    return min(means)[::-1] if means else None


# What is concluded


@dataclass(frozen=True)
class Comparison:
    """A contender against the baseline under one condition: gains in bits per byte, positive where it is better.

    Attributes:
      gain: with the interval that decides: over training seeds and text.
      p: of no difference, two-sided, not corrected.
      over_seeds: Student's t over the seeds' means alone, for this very text.
      bootstrap: paired, of seeds and then windows.
      by_seed: training seed -> gain.
      failure: why there is nothing to compare, in a sentence.
    """

    condition: str
    gain: Interval | None = None
    p: float = 1.0
    over_seeds: Interval | None = None
    bootstrap: Interval | None = None
    by_seed: Mapping[int, float] | None = None
    failure: str | None = None

    def says(self, p: float, level: float) -> str:
        """better | worse | indistinguishable, at this (corrected or own) p value; "failed" without numbers."""
        if self.gain is None:
            return "failed"
        if p >= level or abs(self.gain.mean) < _RESOLUTION:
            return "indistinguishable"
        return "better" if self.gain.mean > 0 else "worse"


def compare(condition: str, ours: Scores, theirs: Scores, level: float) -> Comparison:
    """Gains of `ours` over `theirs`, paired by seed and window."""
    if ours.failure or theirs.failure:
        return Comparison(condition, failure=ours.failure or f"the baseline failed: {theirs.failure}")
    if ours.bits.keys() != theirs.bits.keys():
        raise ValueError(f"{condition}: not the same seeds")
    seeds = sorted(ours.bits)
    gains = [[b - a for a, b in zip(ours.bits[s], theirs.bits[s], strict=True)] for s in seeds]
    means = [sum(row) / len(row) for row in gains]
    gain, p = mean_over_seeds_and_text(gains, 1 - level)
    return Comparison(
        condition,
        gain,
        p,
        mean_interval(means, 1 - level),
        hierarchical_bootstrap(gains, seed=0, level=1 - level),
        dict(zip(seeds, means, strict=True)),
    )


@dataclass(frozen=True)
class Verdict:
    """What is said of one contender.

    Attributes:
      word: "better" | "indistinguishable" | "worse".
      p: of the primary condition, corrected for the number of contenders.
      why: in a sentence.
    """

    word: str
    p: float
    why: str


def verdicts(compared: Sequence[Sequence[Comparison]], matched: Sequence[bool], settings: Settings) -> list[Verdict]:
    """One for each contender.

    Better or worse by the primary condition's corrected p value alone, and only if no other condition says the
    opposite by its own interval; a comparison that failed, or of unequal parameters, never makes one better.

    Args:
      compared: of each contender, the primary condition first.
      matched: whether its parameters are those of the baseline.
    """
    level = settings.verify.level
    adjusted = CORRECTIONS[settings.verify.correction]([ours[0].p for ours in compared])
    return [_verdict(ours, p, same, level) for ours, p, same in zip(compared, adjusted, matched, strict=True)]


def _verdict(compared: Sequence[Comparison], p: float, matched: bool, level: float) -> Verdict:
    primary, others = compared[0], compared[1:]
    word = primary.says(p, level)
    if word == "failed":
        return Verdict("indistinguishable", p, f"there is nothing to compare: {primary.failure}")
    if word == "indistinguishable":
        return Verdict(word, p, f"the difference is within what seeds and text make of it (corrected p {p:.3g})")
    opposite = {"better": "worse", "worse": "better"}[word]
    against = [other.condition for other in others if other.says(other.p, level) == opposite]
    failed = [other.condition for other in others if other.failure and word == "better"]
    if against or failed:
        said = [f"{name} says {opposite}" for name in against] + [f"{name} failed" for name in failed]
        return Verdict("indistinguishable", p, f"{word} by the primary condition, but {', '.join(said)}")
    if word == "better" and not matched:
        return Verdict("indistinguishable", p, f"its parameters differ by more than {MATCHED:.0%}")
    return Verdict(word, p, f"corrected p {p:.3g}, and no other condition says {opposite}")


def is_matched(ours: Scores, theirs: Scores) -> bool:
    """Whether the two have the same number of parameters, within 2 %."""
    return bool(theirs.params) and math.isclose(ours.params, theirs.params, rel_tol=MATCHED)
