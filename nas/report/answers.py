"""Five questions that a reviewer has, answered from the records: what, how sure, why, at what cost, what failed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.ablation import Change
from nas.report.account import Account, name_of
from nas.statistics import Interval, mean_interval, share_interval
from nas.terminal import printable
from nas.types import Crashed, Fitness, Held, Rejected, Trial
from nas.verify import trained

_REASON = 160  # characters of the most frequent one
_FAILURES = 4  # kinds that are told


@dataclass(frozen=True)
class Answer:
    """A question, its answer in short, and what that rests on, a paragraph each. Plain text."""

    question: str
    short: str
    because: Sequence[str] = ()


def answers(account: Account) -> list[Answer]:
    return [question(account) for question in _QUESTIONS]


def _best(account: Account) -> Answer:
    question = "What is the best architecture?"
    best = account.best
    if best is None:
        return Answer(question, "None: no candidate was trained to the end.")
    because = [f"Candidate {best.candidate.id}: {_made_of(account)}. It was chosen by {_chosen_by(account)}."]
    if others := _others(account, best):
        because.append(others)
    if account.guests:
        because.append(
            f"{len(account.guests)} guests, trained by other searches, could be parents here; none of them is ranked."
        )
    if best.candidate.motivation:
        because.append(f"Its author's reason, not a finding: {printable(best.candidate.motivation)}")
    return Answer(question, f"{name_of(best.candidate)}, of trial {best.id}: {_score(account, best)}.", because)


def _made_of(account: Account) -> str:
    """From which baseline, by which changes."""
    if not account.path:
        return "made from nothing that this search knows"
    names = {one.trial.candidate.id: f"{one.name}, a guest," for one in account.guests}
    names |= {trial.candidate.id: name_of(trial.candidate) for trial in account.trials}
    first = account.path[0].parent.id
    return f"{names.get(first, first)} changed by {', then '.join(printable(c.operator) for c in account.path)}"


def _others(account: Account, best: Trial) -> str:
    """Those that verification calls better too, or that score better at the search's seed."""
    better = [v for v in account.verification.get("verdicts", ()) if v["verdict"] == "better" and v["trial"] != best.id]
    told = [f"{v['trial']} {Interval(**v['comparisons'][0]['gain'])}" for v in better if v["comparisons"][0]["gain"]]
    ranked = trained(account.trials, "search")
    lines = [f"Verified as better too: {'; '.join(told)}."] if told else []
    if ranked and ranked[0].id != best.id:
        lines.append(f"At the search's seed {ranked[0].id} scores best.")
    return " ".join(lines)


def _chosen_by(account: Account) -> str:
    if account.verification:
        return "its verification: of those that are better the one that gains most, else the best on validation text"
    return f"the seed of the search, {account.config['train']['seed']}, which flatters whom it chooses"


def _score(account: Account, trial: Trial) -> str:
    """Bits per byte with the interval over fresh seeds, or a word that there is none."""
    assert isinstance(trial.outcome, Fitness)
    fresh = [bits for seed, bits in account.by_seed(trial.candidate).items() if seed != trial.budget.seed]
    if len(fresh) > 1:
        return f"{unsigned(mean_interval(fresh))} bits per byte on fresh seeds"
    spread = "" if account.spread is None else f"; seeds differ by {account.spread:.4f} (standard deviation)"
    return f"{trial.outcome.bits_per_byte:.4f} bits per byte at the search's one seed, so without an interval{spread}"


def _sure(account: Account) -> Answer:
    question = "How sure are we?"
    if account.best is None:
        return Answer(question, "There is nothing to be sure of.")
    verdict = verdict_on(account, account.best)
    if verdict:
        primary = verdict["comparisons"][0]
        gain = Interval(**primary["gain"]) if primary["gain"] else None
        gained = f"It gains {gain} bits per byte over {printable(account.verification['opponent'])}" if gain else ""
        others = [
            f"{printable(each['condition'])}: {each['says']}, "
            + (str(Interval(**each["gain"])) if each["gain"] else f"failed: {printable(str(each['failure']))}")
            for each in verdict["comparisons"][1:]
        ]
        return Answer(
            question,
            f"Verified: {verdict['verdict']}. {gained or 'It could not be compared'} "
            f"(95% interval over seeds and text; p = {verdict['p']:.3g}, corrected).",
            [
                f"Why this verdict: {printable(verdict['why'])}",
                "Under other conditions: " + ("; ".join(others) or "none was tried: no other length, size or corpus."),
                *_told_apart(account, verdict),
            ],
        )
    gain = account.gain_on_fresh_seeds()
    if gain is None:
        return Answer(question, "Not sure: it was not trained at any fresh seed.", [_verify(account)])
    if gain.count == 1:
        return Answer(question, f"Not sure: {gain} bits per byte over the best baseline.", [_verify(account)])
    word = "better than" if gain.low > 0 else "worse than" if gain.high < 0 else "indistinguishable from"
    return Answer(
        question,
        f"On {gain.count} fresh seeds it is {word} the best baseline: it gains {gain} bits per byte (95% interval).",
        ["No verification yet: baselines were not tuned, and the text is that of the search.", _verify(account)],
    )


def _told_apart(account: Account, best: Mapping[str, Any]) -> list[str]:
    """Whether the winner is more than the luckiest of those that are better."""
    lines = []
    for other in account.verification["verdicts"]:
        ours, theirs = (verdict["comparisons"][0].get("by_seed") or {} for verdict in (best, other))
        shared = sorted(ours.keys() & theirs.keys())
        if other["trial"] == best["trial"] or other["verdict"] != "better" or len(shared) < 2:
            continue
        apart = mean_interval([ours[seed] - theirs[seed] for seed in shared])
        word = "More than" if apart.low > 0 else "Not told apart from"
        lines.append(f"{word} {other['trial']}: {apart} bits per byte, paired by seed.")
    return lines


def _verify(account: Account) -> str:
    return f"To be surer: nas verify {account.name}"


def verdict_on(account: Account, trial: Trial) -> Mapping[str, Any] | None:
    """What verification says of it; None if it has not looked."""
    verdicts = account.verification.get("verdicts", ())
    return next((verdict for verdict in verdicts if verdict["trial"] == trial.id), None)


def _why(account: Account) -> Answer:
    question = "What made it better?"
    if not account.path:
        return Answer(
            question, "Nothing that the search did: it has no change between a baseline and a best candidate."
        )

    def told(change: Change) -> str:
        return f"{printable(change.operator)} ({change.trial}) {step_in_words(account, change)}"

    effects = [
        f"{printable(row['operator'])} ({row['trial']}): "
        + (
            f"the winner gains {Interval(**row['effect'])} bits per byte by it"
            if row["effect"]
            else f"no effect of its own is known: {printable(row['reason'] or '')}"
        )
        for row in account.verification.get("ablations", ())
    ]
    count = f"{len(account.path)} {'change' if len(account.path) == 1 else 'changes'}"
    steps = f"{count}, each with what it gained over its parent at one seed: {'; '.join(map(told, account.path))}."
    if any(row["effect"] for row in account.verification.get("ablations", ())):
        return Answer(question, "By ablation: " + "; ".join(effects) + ".", [steps])
    because = [*effects, "A gain at one seed has no interval."]
    if not effects:
        ablate = f"nas verify {account.name} verify.ablations={len(account.path)}"
        because.append(f"To know what each change is worth: {ablate}")
    return Answer(question, f"Not known: no change was ablated. {steps}", because)


def step_in_words(account: Account, change: Change) -> str:
    """What a change gained over its parent, beside the noise."""
    found = account.step_of(change)
    if found is None:
        return "not measured beside its parent"
    gain, step = found
    noise = account.noise_of_difference(step)
    within = (
        "" if noise is None else f", {'within' if gain <= noise else 'above'} the noise of a difference, {noise:.4f}"
    )
    return f"{gain:+.4f} bits per byte at step {step}{within}"


def _cost(account: Account) -> Answer:
    trials = account.trials
    gate = sum(trial.cost.gate_seconds for trial in trials) / 60
    tally = account.tally
    paid = f", ${tally.dollars:.4f} for {tally.calls} calls of language models" if tally else ""
    verified = account.verification.get("minutes")
    return Answer(
        "What did it cost?",
        f"{account.minutes:.1f} minutes, {account.device_minutes:.1f} device-minutes of training in {len(trials)} "
        f"trials: {_kinds_of_trials(account)}{paid}.",
        [
            "Counted, so without an interval. "
            f"Checks before training took {gate:.1f} minutes of the trials' time; {_per_improvement(account)}"
            + (f" The verification's last run took {float(verified):.1f} minutes more." if verified else "")
        ],
    )


def _kinds_of_trials(account: Account) -> str:
    purposes = Counter(trial.purpose for trial in account.trials)
    purposes["search"] = len(account.proposals)  # without copies
    words = {"search": "new candidates", "baseline": "baselines", "confirm": "repeats at fresh seeds"}
    return ", ".join(f"{purposes[purpose]} {what}" for purpose, what in words.items() if purposes[purpose])


def _per_improvement(account: Account) -> str:
    records = account.records()
    if not records:
        return "nothing was improved."
    each = account.device_minutes / len(records)
    return f"{len(records)} times a candidate became the best so far, on the average once in {each:.1f} device-minutes."


def _failed(account: Account) -> Answer:
    question = "What failed most?"
    failures = failures_of(account)
    total = len(account.proposals)
    gained = sum((one.gain or 0.0) > 0 for one in account.proposals)
    rest = [
        f"Stopped early by the scheduler: {share(len(account.stopped), total)}; that is a score, and no failure.",
        f"Gained more than the noise over their parent, at one seed: {share(gained, total)}. A verdict is another "
        "matter: it is over a baseline, and over many seeds.",
    ]
    if not failures:
        return Answer(question, f"Nothing: of {total} candidates none was rejected, crashed or was held.", rest)
    lines = [f"{kind}: {share(len(those), total)}, most often: {often(those)}" for kind, those in failures[:_FAILURES]]
    return Answer(question, f"{lines[0]}.", [*lines[1:], *rest])


def failures_of(account: Account) -> list[tuple[str, list[Trial]]]:
    """(kind, trials) of candidates that came to no score, the most frequent first."""
    kinds: dict[str, list[Trial]] = {}
    for one in account.proposals:
        if not isinstance(one.trial.outcome, Fitness):
            kinds.setdefault(one.kind, []).append(one.trial)
    return sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))


def often(trials: Sequence[Trial]) -> str:
    """The reason that is given most often, on one line."""
    reasons = Counter(_reason(trial) for trial in trials)
    return reasons.most_common(1)[0][0]


def _reason(trial: Trial) -> str:
    assert isinstance(trial.outcome, Rejected | Crashed | Held)
    lines = [line for line in trial.outcome.reason.strip().splitlines() if line.strip()] or [""]
    text = printable(lines[-1] if isinstance(trial.outcome, Crashed) else lines[0])  # a traceback says it at its end
    return text if len(text) <= _REASON else text[: _REASON - 1] + "…"


def share(count: int, total: int) -> str:
    """ "3 of 24 (12% [4%, 31%])": with Wilson's 95% interval."""
    if not total:
        return "0 of 0"
    low, high = share_interval(count, total)
    return f"{count} of {total} ({count / total:.0%} [{low:.0%}, {high:.0%}])"


def unsigned(interval: Interval) -> str:
    """Of a level rather than a difference."""
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}] (n={interval.count})"


_QUESTIONS: Sequence[Callable[[Account], Answer]] = (_best, _sure, _why, _cost, _failed)
