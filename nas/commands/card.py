"""The model card of an exported trial: what it is, where it comes from, what it was measured to be."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nas.ablation import lineage
from nas.commands.measuring import markdown_table
from nas.commands.trial_record import TrialRecord
from nas.commands.verified import interval
from nas.journal import Event
from nas.markdown import as_text
from nas.reports import Packed
from nas.space import SearchSpace
from nas.standalone.sources import PACKAGE
from nas.statistics import standard_deviation
from nas.terminal import printable
from nas.types import Fitness, Trial, trial_from_json

_FILES = f"""\
| | |
|---|---|
| `{PACKAGE}/mixer.py` | the token mixer, as it was found |
| `{PACKAGE}/model.py` | the backbone around it |
| `{PACKAGE}/decoding.py` | one token after the other |
| `config.json`, `weights.npz` | sizes, and the trained parameters |
| `generate.py` | an example |
"""
_RUN = f"""\
```
pip install -r requirements.txt
python generate.py "The " --tokens 200 --temperature 0.8
```

```python
import jax.numpy as jnp
from {PACKAGE} import Decoder, load, tokenizer

model = load()                                   # tokens [batch, time] -> logits [batch, time, vocabulary]
logits = model(jnp.array([tokenizer.encode("The ")]))
decoder = Decoder(model)                         # token by token
for token in tokenizer.encode("The "):
    logits = decoder([token])                    # [1, vocabulary]
```
"""


def card(record: TrialRecord, space: SearchSpace, seen: Packed, requirements: Sequence[str]) -> str:
    """The card as Markdown. Whatever a candidate or a journal says in it is text."""
    trials = _trials(record.events)
    parts = [
        f"# {_text(record.label)}",
        *_what(record, space),
        "## How to run",
        _RUN,
        _FILES,
        *_decoding(seen),
        "## Where it comes from",
        *_lineage(record, trials),
        "## What it scored",
        *_scores(record, trials, seen),
        *_verdict(record),
        "## Certificate",
        *_certificate(record, trials),
        "## What it cost",
        *_cost(record),
        "## Versions",
        *_versions(record, requirements),
    ]
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def _text(value: Any) -> str:
    return as_text(printable(str(value)))


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return "\n".join(markdown_table(headers, [[_text(cell) for cell in row] for row in rows])).rstrip("\n") + "\n"


def _what(record: TrialRecord, space: SearchSpace) -> Iterator[str]:
    settings, candidate, corpus = record.settings, record.trial.candidate, record.corpus
    model, train = settings.model, settings.train
    tokens = "bytes" if corpus.get("tokenizer", "bytes") == "bytes" else f"tokens of {corpus['tokenizer']}"
    yield (
        f"A causal language model on {_text(tokens)}: {model.layers} layer{'s' * (model.layers > 1)} of width "
        f"{model.width} with {model.heads} heads, {record.fitness.params:,} parameters, around a token mixer that an "
        f"architecture search has {'measured as a baseline' if record.trial.purpose == 'baseline' else 'found'} "
        f"(family: {_text(space.family(candidate.source))})."
    )
    steps = f"{record.fitness.step} of {train.steps}" if record.trial.stopped else f"{record.fitness.step}"
    yield (
        f"It was trained for {steps} steps of {train.batch} x {train.time} tokens of {_text(corpus.get('name'))} "
        f"(sha256 {_text(str(corpus['sha256'])[:16])}), to compare architectures: it is small, and hardly trained."
    )
    if candidate.motivation:
        yield f"Motivation, by its author ({_text(candidate.proposer)}): {_text(candidate.motivation)}"


def _decoding(seen: Packed) -> Iterator[str]:
    if seen.step is None:
        yield "The mixer has no `step`: `Decoder` goes through the whole text so far for each token."
    else:
        yield (
            "`Decoder` goes on from a state of fixed size by the mixer's `step`. Its logits were within "
            f"{seen.step:.1g} of those of the whole sequence at once."
        )


def _lineage(record: TrialRecord, trials: Sequence[Trial]) -> Iterator[str]:
    candidate = record.trial.candidate
    names = {trial.candidate.id: trial.candidate.name for trial in trials if trial.candidate.name}
    changes = lineage(candidate, trials)[::-1]
    if not changes:
        yield f"{_text(record.label)} is no child of another candidate of the search ({_text(candidate.operator)})."
        return
    tried = {trial.candidate.id: trial for trial in reversed(trials)}
    rows = [
        (
            change.trial,
            change.operator,
            " and ".join(names.get(parent, parent) for parent in change.child.parents),
            change.child.id,
            _bits(tried[change.child.id]),
            change.child.motivation,
        )
        for change in changes
    ]
    yield "Each change, by the operator that made it, the earliest first:"
    yield _table(["trial", "operator", "of", "candidate", "bits per byte", "motivation"], rows)


def _bits(trial: Trial) -> str:
    return f"{trial.outcome.bits_per_byte:.4f}" if isinstance(trial.outcome, Fitness) else ""


def _scores(record: TrialRecord, trials: Sequence[Trial], seen: Packed) -> Iterator[str]:
    fitness, trial = record.fitness, record.trial
    held_out = fitness.held_out_bits_per_byte
    rows = [("validation", _measured(fitness.bits_per_byte, fitness.stderr))]
    if held_out is not None:
        rows.append(("text that no training process saw", _measured(held_out, fitness.held_out_stderr)))
    if seen.bits_per_byte is not None:
        rows.append(("validation, by this package", f"{seen.bits_per_byte:.4f}"))
    yield f"These weights, training seed {trial.budget.seed}, in bits per byte ± the standard error over windows:"
    yield _table(["on", "bits per byte"], rows)
    same = [t for t in trials if t.candidate.id == trial.candidate.id and isinstance(t.outcome, Fitness)]
    by_seed = {t.budget.seed: _bits(t) for t in same if not t.stopped}
    if len(by_seed) > 1:
        values = [float(bits) for bits in by_seed.values()]
        error = standard_deviation(values) / len(values) ** 0.5
        yield f"The same architecture over training seeds (validation): {_measured(sum(values) / len(values), error)}."
        yield _table(["seed", "bits per byte"], [*by_seed.items()])
    if trial.purpose == "search":
        yield "The seed by which a candidate was chosen flatters it: the others tell more."


def _measured(bits: float, error: float | None) -> str:
    return f"{bits:.4f}" + ("" if error is None else f" ± {error:.4f}")


def _verdict(record: TrialRecord) -> Iterator[str]:
    verified = [e for e in record.events if e["event"] == "verified" and e.get("trial") == record.trial.id]
    if not verified:
        yield "It was not verified on fresh seeds and untouched text (`nas verify`)."
        return
    rows = [
        (event.get("verdict"), event.get("against"), _interval(event), f"{event['p']:.3g}" if "p" in event else "")
        for event in verified
    ]
    yield "Verified on fresh seeds and untouched text; the gain in bits per byte, with its confidence interval:"
    yield _table(["verdict", "against", "gain", "p, corrected"], rows)
    if conditions := [*_conditions(record, verified[-1])]:
        yield "Under each condition of that verification:"
        yield _table(["condition", "gain"], conditions)


def _conditions(record: TrialRecord, verified: Event) -> Iterator[tuple[str, str]]:
    """What the report has beside the journal, if it is there and is of the same verification."""
    try:
        report = json.loads((record.folder.path / "verification.json").read_text(encoding="utf-8"))
        for verdict in report["verdicts"]:
            compared = verdict["comparisons"]
            if verdict["trial"] == record.trial.id and compared[0]["gain"] == verified.get("gain"):
                yield from [(each["condition"], interval(each["gain"]) or "failed") for each in compared]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return


def _interval(event: Event) -> str:
    gain = event.get("gain")
    return interval(gain) if isinstance(gain, Mapping) else ""


def _certificate(record: TrialRecord, trials: Sequence[Trial]) -> Iterator[str]:
    candidate = record.trial.candidate.id  # one that is trained once more has had its certificate
    certificate = next((t.certificate for t in trials if t.candidate.id == candidate and t.certificate), None)
    if certificate is None:
        yield "None: a reference from outside does not pass through the gate."
        return
    exponents = ", ".join(f"{name} {value:g}" for name, value in certificate.exponents.items())
    rows = [
        *certificate.checks.items(),
        ("parameters of one mixer", f"{certificate.params:,}"),
        ("FLOPs per token of one mixer, forward", f"{certificate.flops_per_token:,.0f}"),
        ("bytes of its state", "" if certificate.state_bytes is None else f"{certificate.state_bytes:,}"),
        ("growth in time, exponents", exponents),
        ("fingerprint of its function", certificate.fingerprint),
    ]
    yield "What the gate saw, before it was trained:"
    yield _table(["check", "seen"], rows)


def _cost(record: TrialRecord) -> Iterator[str]:
    fitness, cost = record.fitness, record.trial.cost
    rows = [
        ("seconds in the gate", f"{cost.gate_seconds:.1f}"),
        ("seconds of training, measurements included", f"{cost.train_seconds:.1f}"),
        ("seconds in all", f"{cost.total_seconds:.1f}"),
        ("tokens per second of training", f"{fitness.tokens_per_second:,.0f}"),
        ("forward FLOPs per token of the whole model", f"{fitness.flops_per_token:,.0f}"),
        ("most memory of the training process, bytes", f"{fitness.peak_bytes:,}"),
    ]
    if fitness.learning_rate is not None:
        rows.append(("peak learning rate, by the grid", f"{fitness.learning_rate:g}"))
    yield _table(["", ""], rows)


def _versions(record: TrialRecord, requirements: Sequence[str]) -> Iterator[str]:
    versions = record.environment.get("versions")
    trained = versions.items() if isinstance(versions, Mapping) else []
    yield f"Trained with {_text(', '.join(f'{name} {value}' for name, value in trained) or 'versions not noted')}."
    yield f"Packed, and held against the engine, with {_text(', '.join(requirements))}."
    yield f"Trial {_text(record.trial.id)} of the search {_text(record.folder.name)}."


def _trials(events: Sequence[Event]) -> list[Trial]:
    """Those that can be read, guests among them; a damaged line costs the card that line."""
    found = []
    for event in events:
        if event["event"] in ("trial", "guest"):
            try:
                found.append(trial_from_json(event))
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
    return found
