"""`nas reproduce SEARCH TRIAL`: one trained trial of a search once more, from the search's journal alone.

Candidate, settings and seeds come from the journal, the corpus from its settings, known by its sha256; the checkpoint
is not looked at. It is trained in a box as the search did, with the same learning rates and rungs, as far as it was
trained then. On the same kind of machine with the same versions every number has to be the same. Elsewhere sums are
rounded otherwise, and training makes more of that; what bits per byte may then differ by is one standard deviation over
training seeds, as the search has measured it: no more than another seed would make of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from nas.commands.containment import contained
from nas.commands.environment import differences, environment_of
from nas.commands.folder import folder_of
from nas.commands.measuring import at_a_time
from nas.commands.trial_record import TrialRecord, record_of
from nas.commands.trial_spec import spec_of
from nas.configuration import reproducing
from nas.errors import UserError
from nas.journal import Event
from nas.noise import noise_from_json
from nas.probe_trial import run_probed_trial
from nas.sandbox import Box, temporary_folder
from nas.settings import Settings
from nas.space import load_space
from nas.tasks.corpus import Corpus, CorpusError, prepare
from nas.terminal import make_console, printable
from nas.trial import ANY, PRELOAD, PROBING, TrialSpec, fitness_json
from nas.types import Fitness, outcome_from_json

_USAGE = "usage: nas reproduce SEARCH TRIAL [overrides]"
# Beside bits per byte: what is the same number wherever the same thing is computed in the same way.
_FITNESS = ("stderr", "learning_rate", "params", "flops_per_token", "probes", "held_out_stderr")
_CERTIFICATE = ("params", "flops_per_token", "state_bytes", "exponents", "fingerprint")


def arguments(words: Sequence[str]) -> tuple[str, str, list[str]]:
    """(search, trial, overrides) of a command line.

    Raises:
      UserError: with the usage.
    """
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    named = [word for word in words if word not in overrides]
    if len(named) != 2 or any(word.startswith("-") for word in named):
        raise UserError(_USAGE)
    return named[0], named[1], overrides


@dataclass(frozen=True)
class Terms:
    """What is asked of a number.

    Attributes:
      apart: what is not as it was, in words; if nothing, every number has to be the same.
      noise: step -> standard deviation of bits per byte over training seeds, as far as the search has measured it.
      otherwise: bits per byte that stand in for it.
    """

    apart: Sequence[str]
    noise: Mapping[int, float]
    otherwise: float

    def tolerance(self, step: int) -> float:
        """Bits per byte."""
        return (self.noise.get(step) or self.otherwise) if self.apart else 0.0

    def in_words(self) -> str:
        if not self.apart:
            return "versions, sources and kind of machine are those of the journal: every number has to be the same"
        if self.noise:
            return "bits per byte have to agree within one standard deviation over seeds, as the search has measured it"
        return (
            f"the search has measured no noise over seeds: bits per byte have to agree within "
            f"tripwire.rescore={self.otherwise:g}"
        )


@dataclass
class Compared:
    """What was trained again beside what the journal says: `failures` in words, and whether all was the `same`."""

    terms: Terms
    failures: list[str] = field(default_factory=list)
    same: bool = True

    def bits(self, what: str, step: int, recorded: Sequence[float | None], again: float | None) -> str:
        """Takes in bits per byte, which the journal may say more than once; returns a line for a person."""
        if again is None or None in recorded:
            return self._other(what, recorded[-1], again)
        said = list(dict.fromkeys(value for value in recorded if value is not None))
        apart = max((again - value for value in said), key=abs)
        told = f"{what}  {again:.4f} bits per byte, "
        if apart == 0.0:
            return told + "as in the journal"
        self.same = False
        within = abs(apart) <= self.terms.tolerance(step)
        told += f"{apart:+.2g} from the journal's {' and '.join(f'{value:.4f}' for value in said)}"
        if self.terms.apart:
            told += f", {'within' if within else 'beyond'} {self.terms.tolerance(step):.2g}"
        if len(said) > 1:
            told += ": the journal contradicts itself"
        if not within or len(said) > 1:
            self.failures.append(
                f"{what.strip()}: {again!r} bits per byte, the journal says {' and '.join(map(repr, said))}"
            )
        return told

    def others(
        self, of: str, names: Sequence[str], recorded: Mapping[str, Any], again: Mapping[str, Any]
    ) -> Iterator[str]:
        """Takes in what is the same on the same kind of machine, and decides nothing elsewhere; a line for each that
        is not."""
        for name in names:
            if recorded.get(name) != again.get(name):
                yield self._other(f"{of} {name}", recorded.get(name), again.get(name))

    def _other(self, what: str, recorded: Any, again: Any) -> str:
        self.same = False
        told = f"{what}: {printable(str(again))}, the journal says {printable(str(recorded))}"
        if not self.terms.apart:
            self.failures.append(told)
        return told


def reproduce(search: str, trial: str, asked: Settings, overrides: Sequence[str]) -> int:
    """Trains it again and compares. Returns 0 if it reproduces, else 1.

    Args:
      asked: what `overrides` make of the defaults.

    Raises:
      UserError: naming what is missing or damaged.
    """
    folder = folder_of(search, Path(asked.results_dir))
    record = record_of(folder, trial)
    settings = reproducing(record.settings, asked, overrides, str(folder.path.resolve().parent))
    settings = replace(settings, execution=replace(settings.execution, address=None))  # here, not on its cluster
    space = load_space(settings.search_space.module)
    corpus = _corpus(record, settings)
    console = make_console()
    tier = contained(settings, console)
    terms = _terms(record, settings)
    for line in _opening(record, settings, corpus, terms):
        _print(console, line)
    with temporary_folder("nas-reproduce-") as scratch:
        spec = spec_of(
            record.trial.candidate,
            record.trial.purpose,
            record.trial.budget,
            settings,
            space,
            corpus,
            scratch / "trial",
            known={},  # it was new then
            reference_flops=None,
            contends_below=None if record.fitness.held_out_bits_per_byte is None else ANY,
            compiled=None,
        )
        preload = (*PRELOAD, *sorted(space.allowed_imports), *([PROBING] if spec.probes else []))
        box = Box(preload, at_a_time(settings)[1], tier, scratch)
        try:
            compared = Compared(terms)
            outcome = _again(record, spec, box, compared, console)
        finally:
            box.close()
    _compare_end(record, outcome, compared, console)
    _print(console, _verdict(record, compared))
    return 1 if compared.failures else 0


def _corpus(record: TrialRecord, settings: Settings) -> Corpus:
    """Raises CorpusError if it is gone, or no longer the text that the search saw."""
    corpus = prepare(settings.corpus, Path(settings.results_dir) / ".cache")
    if corpus.sha256 != record.corpus["sha256"]:
        raise CorpusError(
            f"the corpus is no longer that of {record.folder.name} (sha256 {corpus.sha256[:16]}, was "
            f"{printable(str(record.corpus['sha256']))[:16]}): restore it, or say where it is with corpus.path="
        )
    corpus.require_windows(settings.train.time)
    return corpus


def _terms(record: TrialRecord, settings: Settings) -> Terms:
    apart = list(differences(record.environment, environment_of(settings)))
    for name in ("cpus_per_trial", "gpus_per_trial", "tpus_per_trial"):
        was, now = (getattr(each.execution, name) for each in (record.settings, settings))
        if was != now:
            apart.append(f"execution.{name} {now:g}, was {was:g}")
    return Terms(apart, _noise(record.events), settings.tripwire.rescore)


def _noise(events: Sequence[Event]) -> dict[int, float]:
    """Raises UserError if what was measured is damaged."""
    try:
        measured = [noise_from_json(event) for event in events if event["event"] == "noise"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"what the journal says of the noise over seeds is damaged: {error}") from error
    return {step: estimate.deviation for step, estimate in measured[-1].score.items()} if measured else {}


def _opening(record: TrialRecord, settings: Settings, corpus: Corpus, terms: Terms) -> Iterator[str]:
    trial, train = record.trial, settings.train
    end = (
        f"up to step {record.fitness.step} of {train.steps}, where it was stopped"
        if trial.stopped
        else f"{train.steps} steps"
    )
    yield (
        f"training {trial.id} of {record.folder.name} again: {trial.purpose} {record.label}, training seed "
        f"{trial.budget.seed}, {end}, {train.batch} x {train.time} {corpus.unit} of {corpus.name} "
        f"(sha256 {corpus.sha256[:16]})"
    )
    yield from (f"not as in the journal: {one}" for one in terms.apart)
    yield terms.in_words()


def _again(record: TrialRecord, spec: TrialSpec, box: Box, compared: Compared, console: Console) -> dict[str, Any]:
    """The outcome as JSON values; compares certificate and rungs as they come."""
    last = record.fitness.step
    recorded = {rung.step: [rung.bits_per_byte] for rung in record.told}
    for rung in record.trial.rungs:
        recorded[rung.step].append(rung.bits_per_byte)
    outcome: dict[str, Any] = {}
    messages: Any = run_probed_trial(spec, box)
    with closing(messages):
        for message in messages:
            if "certificate" in message:
                certificate = asdict(record.trial.certificate) if record.trial.certificate else {}
                _print(console, "the gate passes it")
                for line in compared.others("certificate", _CERTIFICATE, certificate, message["certificate"]):
                    _print(console, line)
            elif "rung" in message:
                rung = message["rung"]
                what = f"step {rung['step']:>6}"
                _print(console, compared.bits(what, rung["step"], recorded[rung["step"]], rung["bits_per_byte"]))
                if record.trial.stopped and rung["step"] == last:  # as the scheduler did
                    return fitness_json(rung, spec.fitness)
            else:
                outcome = message["outcome"]
    return outcome


def _compare_end(record: TrialRecord, outcome: dict[str, Any], compared: Compared, console: Console) -> None:
    again = outcome_from_json(outcome)
    if not isinstance(again, Fitness):
        by = outcome.get("check") or outcome.get("cause") or outcome.get("tripwire")
        reason = (str(outcome.get("reason")).strip().splitlines() or [""])[-1]
        compared.failures.append(f"it is {outcome['kind']} this time ({by}): {printable(reason)}")
        return
    recorded = record.fitness
    rescored = recorded.held_out_bits_per_byte is not None  # else it is what the last rung measured
    end = [recorded.bits_per_byte] if rescored else [record.trial.rungs[-1].bits_per_byte, recorded.bits_per_byte]
    _print(console, compared.bits("end        ", recorded.step, end, again.bits_per_byte))
    if rescored or again.held_out_bits_per_byte is not None:
        held_out = [recorded.held_out_bits_per_byte]
        _print(console, compared.bits("held out   ", recorded.step, held_out, again.held_out_bits_per_byte))
    for line in compared.others("its", _FITNESS, asdict(recorded), asdict(again)):
        _print(console, line)


def _verdict(record: TrialRecord, compared: Compared) -> str:
    what = f"{record.trial.id} of {record.folder.name}"
    if compared.failures:
        return f"Not reproduced: {what}: {'; '.join(compared.failures)}."
    if compared.same:
        return f"Reproduced: {what}: every number is the same."
    return f"Reproduced: {what}: within the noise over seeds, not to the last digit."


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
