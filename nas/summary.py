"""How a search ended: the best candidate beside the best baseline, with seeds and interval, and what to do next."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas import pareto
from nas.markdown import as_text
from nas.pareto import Front, Point
from nas.scores import state_bytes, stateless_bytes
from nas.search import Search
from nas.settings import FitnessSettings
from nas.statistics import Interval, mean_interval, standard_deviation
from nas.tally import Tally
from nas.terminal import printable
from nas.types import Crashed, Fitness, Held, Rejected, Trial


@dataclass(frozen=True)
class Row:
    """One architecture of the final table.

    Attributes:
      by_seed: training seed -> bits per byte after the full budget.
      chosen_by: the training seed by which candidates were chosen.
      held_out_by_seed: the same on text that the training never saw, of those seeds where that was measured.
    """

    trial: Trial
    by_seed: dict[int, float]
    chosen_by: int
    held_out_by_seed: dict[int, float] = field(default_factory=dict)

    @property
    def scores(self) -> list[float]:
        """On fresh seeds where there are any: the seed by which a candidate was chosen flatters it."""
        return self._fresh(self.by_seed)

    @property
    def held_out(self) -> list[float]:
        """The held-out scores, on fresh seeds where there are any."""
        return self._fresh(self.held_out_by_seed)

    def _fresh(self, by_seed: dict[int, float]) -> list[float]:
        fresh = [score for seed, score in by_seed.items() if seed != self.chosen_by]
        return fresh or list(by_seed.values())

    @property
    def mean(self) -> float:
        return _mean(self.scores)

    @property
    def seeds(self) -> str:
        """How many seeds the mean is of, and whether they are fresh."""
        return f"{len(self.scores)} fresh" if self.by_seed.keys() - {self.chosen_by} else "1"

    @property
    def name(self) -> str:
        return _name(self.trial)


@dataclass(frozen=True)
class Summary:
    """What a search found.

    Attributes:
      rows: baselines and the best candidates, in the order of the seed that all were trained with.
      gain: best baseline's bits per byte minus the best candidate's, paired over fresh seeds (those by which neither
        was chosen); None if there are none.
      noise: standard deviation of bits per byte over training seeds.
      seeds: what is known of the noise, in a sentence.
      fidelity: whether each early rung tells what the last one says, a line each; none with too few trials.
      scored: whether a score is more than minus the bits per byte, and so has a column of its own.
      front: the Pareto front of what was trained to the end, and `on_front` the names of who is on it.
      more_trials: how many to go on with; None if the proposer has no more.
      waiting: ids of held trials that no person has decided on; none of them is in anything else here.
      llm: what the language models did, in lines of plain text; none where there was no model.
      guests: what other searches have found and this one took in, in a line; none of it is in anything else here.
    """

    rows: Sequence[Row]
    best: Trial | None
    best_baseline: Trial | None
    gain: Interval | None
    noise: float
    outcomes: Counter[str]
    more_trials: int | None = None
    waiting: Sequence[str] = ()
    llm: Sequence[str] = ()
    seeds: str = ""
    fidelity: Sequence[str] = ()
    front: Front | None = None
    on_front: Sequence[str] = ()
    scored: bool = False
    guests: Sequence[str] = ()

    def verdict(self) -> str:
        """The result in one sentence."""
        if self.best is None:
            return "No candidate was trained."
        if self.best_baseline is None:
            return "No baseline was trained."
        if self.gain is None:
            return "The best candidate was not confirmed on fresh seeds: its score is that of the seed that chose it."
        if self.gain.count == 1:
            return (
                f"On the one fresh seed the best candidate gains {self.gain.mean:+.4f} bits per byte over the best "
                "baseline: one seed allows no interval, and so no verdict (search.confirm_seeds=2 or more)."
            )
        if self.gain.low > 0:
            word = "better than"
        elif self.gain.high < 0:
            word = "worse than"
        else:
            word = "indistinguishable from"
        return (
            f"On {self.gain.count} fresh seeds the best candidate is {word} the best baseline: "
            f"it gains {self.gain} bits per byte (95% interval)."
        )

    def markdown(self) -> str:
        held_out = any(row.held_out for row in self.rows)
        headers = ["architecture", "bits per byte", *["held out"][:held_out], "seeds"]
        lines = [_line(headers), "|" + "---|" * len(headers)]
        for row in self.rows:
            lines.append(
                _line([as_text(row.name), _scores(row.scores), *[_scores(row.held_out)][:held_out], row.seeds])
            )
        waiting = [f"Held until a person has decided: {', '.join(self.waiting)}."] if self.waiting else []
        told = [as_text(line) for line in (self.seeds, *self.fidelity, *self._front(), *self.guests, *self.llm) if line]
        return "\n".join([self.verdict(), "", *lines, "", f"Candidates: {as_text(self._tally())}.", *waiting, *told])

    def show(self, console: Console, folder: Path, reason: str) -> None:
        """Prints the result and the next commands."""
        held_out = any(row.held_out for row in self.rows)
        headers = (
            "architecture",
            "kind",
            "bits/byte",
            *["held out"][:held_out],
            *["score"][: self.scored],
            "seeds",
            "tokens/s",
            "FLOPs/token",
            "state",
        )
        table = Table(*headers, title="Result (± is the deviation over seeds)")
        for row in self.rows:
            assert isinstance(row.trial.outcome, Fitness)
            table.add_row(
                Text(row.name),
                row.trial.purpose if row.trial.purpose == "baseline" else "candidate",
                _scores(row.scores),
                *[_scores(row.held_out)][:held_out],
                *[f"{row.trial.outcome.score:+.4f}"][: self.scored],
                row.seeds,
                f"{row.trial.outcome.tokens_per_second:,.0f}",
                f"{row.trial.outcome.flops_per_token:,.0f}",
                _state(row.trial),
            )
        console.print(table)
        lines = [
            f"Candidates: {self._tally()}. {self.seeds}".rstrip(),
            *self.fidelity,
            *self._front(),
            *self.guests,
            *self.llm,
            self.verdict(),
            f"Ended: {_reason(printable(reason))}",
        ]
        if self.waiting:
            lines.append(f"Held: {len(self.waiting)} wait for your decision; none of them is in the table above.")
        if self.best:
            lines.append(f"Best candidate's source: {folder / 'best.py'}")
        lines += ["Next:", *(f"  {command:<58} {what}" for command, what in self._next(folder, reason))]
        for line in lines:
            console.print(line, soft_wrap=True, markup=False)  # brackets in a name or a path are just that

    def _front(self) -> list[str]:
        if self.front is None:
            return []
        grown = f"{self.front.of_baselines:.3f} by the baselines, {self.front.hypervolume:.3f} with the candidates"
        return [f"Pareto front ({pareto.OBJECTIVES}): {', '.join(self.on_front)}. Hypervolume: {grown}."]

    def _tally(self) -> str:
        return ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(self.outcomes.items())) or "none"

    def _next(self, folder: Path, reason: str) -> list[tuple[str, str]]:
        commands = []
        if self.waiting:
            commands.append((f"nas review {folder}", "what is held, and why"))
        if reason.startswith("budget."):
            key, _, value = reason.partition("=")
            commands.append((f"nas search resume={folder} {key}={2 * float(value):g}", "goes on with twice the budget"))
        elif reason != "trials":
            commands.append((f"nas search resume={folder}", "goes on where this ended"))
        commands.append((f"nas report {folder}", "one page: what was found, how sure it is, why, at what cost"))
        commands.append((f"nas ui results_dir={folder.parent}", "every candidate in the browser"))
        if self.best:
            commands.append((f"nas train {folder / 'best.py'} train.seed=7", "trains the best one once more"))
        if reason == "trials" and self.more_trials:
            more = f"nas search resume={folder} search.trials={self.more_trials}"
            commands.append((more, "goes on with more candidates"))
        return commands


def summarize(search: Search, top: int = 5, llm: Tally | None = None) -> Summary:
    """The summary of a search as it stands.

    Args:
      top: how many of the best candidates have a row.
      llm: what the language models did, counted from the journal's events.
    """
    best, baseline = search.best("search"), search.best("baseline")
    front = front_of(search)
    rows = [
        _row(search, trial, by_seed)
        for purpose in ("search", "baseline")
        for trial in _first(top if purpose == "search" else None, search, purpose)
        if (by_seed := search.fitness_by_seed(trial.candidate.id))
    ]
    return Summary(
        rows=sorted(rows, key=lambda row: row.by_seed.get(search.settings.train.seed, row.mean)),
        best=best,
        best_baseline=baseline,
        gain=_paired_gain(search, best, baseline),
        noise=search.archive.noise(search.settings.train.steps),
        outcomes=Counter(_kind(trial) for trial in search.trials.values() if trial.purpose == "search"),
        more_trials=None if search.exhausted else max(2 * search.settings.search.trials, 1),
        waiting=[trial.id for trial in search.waiting()],
        llm=_llm(llm) if llm else [],
        scored=search.settings.fitness != FitnessSettings(),
        seeds=_seeds(search),
        fidelity=_fidelity(search),
        front=front,
        on_front=[_name(search.trials[trial]) for trial in front.trials] if front else [],
        guests=_guests(search),
    )


def front_of(search: Search) -> Front | None:
    """The Pareto front of baselines and candidates that were trained to the end; None without such a baseline."""
    stateless = stateless_bytes(search.settings)
    return pareto.front(
        [
            Point(
                trial.id,
                trial.outcome.bits_per_byte,
                trial.outcome.flops_per_token,
                state_bytes(trial.certificate, stateless),
                baseline=trial.purpose == "baseline",
            )
            for trial in search.archive.ranked()
            if isinstance(trial.outcome, Fitness) and trial.outcome.step >= trial.budget.steps
            if trial.purpose != "guest"
        ]
    )


def _seeds(search: Search) -> str:
    """How far training seeds differ, each deviation with its 95% interval where it was measured."""
    step = search.settings.train.steps
    if step not in search.noise.score:
        return f"Noise over seeds: {search.archive.noise(step):.4f} bits per byte."
    score, difference = search.noise.score[step], search.noise.difference[step]
    kept = ", kept from an earlier search" if search.noise_source == "cached" else ""
    return (
        f"Noise over seeds: {score} bits per byte; of a difference at one seed: {difference} "
        f"({score.freedom:.1f} and {difference.freedom:g} degrees of freedom{kept})."
    )


def _fidelity(search: Search) -> list[str]:
    lines = []
    for found in search.audit.found():
        weight = search.audit.weight(found.step)
        doubt = "" if weight == 1 else f"; it does not carry over, and gains there count {weight:.2f}"
        lines.append(f"Fidelity of {found}{doubt}.")
    if any(found.trials < found.reached for found in search.audit.found()):
        lines.append(
            "Only what survives a rung reaches the last: that narrows the range, and understates the correlation."
        )
    return lines


def _guests(search: Search) -> list[str]:
    """How many there were and who was best: what they were worth was measured elsewhere, and is no result of this."""
    best = search.best("guest")
    if best is None:
        return []
    assert isinstance(best.outcome, Fitness)
    found = f"the best, {printable(best.id)}, has {best.outcome.bits_per_byte:.4f} bits per byte there"
    count = len(search.guests)
    return [f"Guests: {count} trained by other searches, for parents alone, so none is in the table; {found}."]


def _name(trial: Trial) -> str:
    candidate = trial.candidate
    return printable(candidate.name) or f"{printable(candidate.operator)} {candidate.id}"


def _llm(tally: Tally) -> list[str]:
    result = printable(tally.result())
    return [f"LLM: {printable(tally.words())}.", *([f"Proposers: {result}."] if result else [])]


def _row(search: Search, trial: Trial, by_seed: Mapping[int, Fitness]) -> Row:
    return Row(
        trial,
        {seed: fitness.bits_per_byte for seed, fitness in by_seed.items()},
        search.settings.train.seed,
        {
            seed: fitness.held_out_bits_per_byte
            for seed, fitness in by_seed.items()
            if fitness.held_out_bits_per_byte is not None
        },
    )


def _first(count: int | None, search: Search, purpose: str) -> list[Trial]:
    return [trial for trial in search.archive.ranked() if trial.purpose == purpose][:count]


def _paired_gain(search: Search, best: Trial | None, baseline: Trial | None) -> Interval | None:
    if best is None or baseline is None:
        return None
    ours = search.bits_per_byte_by_seed(best.candidate.id)
    theirs = search.bits_per_byte_by_seed(baseline.candidate.id)
    fresh = sorted((ours.keys() & theirs.keys()) - {search.settings.train.seed})
    return mean_interval([theirs[seed] - ours[seed] for seed in fresh]) if fresh else None


def _state(trial: Trial) -> str:
    """Bytes of one mixer's decoding state at batch 1."""
    size = trial.certificate.state_bytes if trial.certificate else None
    return "" if size is None else f"{size / 1024:,.1f} KiB"


def _line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def _scores(scores: Sequence[float]) -> str:
    """Mean and deviation over seeds; the one score there is; nothing for none."""
    if len(scores) < 2:
        return "".join(f"{score:.4f}" for score in scores)
    return f"{_mean(scores):.4f} ± {standard_deviation(scores):.4f}"


def _kind(trial: Trial) -> str:
    if isinstance(trial.outcome, Rejected):
        return f"rejected by {trial.outcome.check}"
    if isinstance(trial.outcome, Crashed):
        return f"crashed ({trial.outcome.cause})"
    if isinstance(trial.outcome, Held):
        return f"held by {trial.outcome.tripwire}"
    return "stopped early by the scheduler" if trial.stopped else "trained to the end"


def _reason(reason: str) -> str:
    if reason == "trials":
        return "all candidates were tried."
    if reason == "interrupted":
        return "you interrupted it; nothing finished is lost."
    if reason.startswith("budget."):
        return f"the cap {reason} is reached."
    return f"{reason}."
