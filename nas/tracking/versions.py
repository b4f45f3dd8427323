"""What MLflow's registry should hold: verified architectures as versions of one model per search space. Pure.

The journals say what was verified, the trail of approvals what persons decided. The alias `candidate` is on the best
that was verified as better and that nobody has decided on yet, `champion` on the last one that stands approved.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.approvals import ACTIONS, approved
from nas.tracking import words
from nas.tracking.writes import Event, Search

CANDIDATE, CHAMPION = "candidate", "champion"
_ANCESTORS = 100  # of a lineage are told


@dataclass(frozen=True)
class Version:
    """A verified architecture.

    Attributes:
      gain: bits per byte over the tuned baseline; None if it came to none.
      decision: the last one of a person about it, in a word; None if there is none.
    """

    search: Search
    trial: str
    candidate: str
    verdict: str
    gain: float | None
    decision: str | None
    tags: Mapping[str, str]
    description: str


@dataclass(frozen=True)
class Model:
    """All versions of one search space, and alias -> the one it is on."""

    name: str
    versions: Sequence[Version]
    aliases: Mapping[str, Version]


def models_of(searches: Iterable[Sequence[Event]], trail: Sequence[Event]) -> list[Model]:
    """The models that these journals and this trail come to.

    Args:
      searches: the events of each search, the first of which begins it.
      trail: every decision, oldest first (`nas.approvals.read_trail`).
    """
    versions: dict[str, list[Version]] = {}  # module of the space -> in the order of the searches
    for events in searches:
        if events:
            versions.setdefault(_module(events[0]), []).extend(_versions(events, trail))
    return [
        Model(name_of(module), found, _aliases(module, found, trail)) for module, found in versions.items() if found
    ]


def name_of(module: str) -> str:
    """The registered model of a space: the last part of its module that says anything."""
    parts = words.clean(module).replace("/", ".").replace(":", ".").split(".")
    telling = [part for part in parts if part not in ("", "space")]
    return (telling or ["space"])[-1]


def _module(begun: Event) -> str:
    return words.clean(words.mapping(words.mapping(begun.get("config")).get("search_space")).get("module"))


def _versions(events: Sequence[Event], trail: Sequence[Event]) -> list[Version]:
    module, search = _module(events[0]), words.search_of(events[0])
    trials = {words.clean(event.get("id")): event for event in events if event.get("event") == "trial"}
    asked = {words.clean(event.get("trial")): event for event in events if event.get("event") == "ask"}
    parents = {
        words.clean(candidate.get("id")): [words.clean(parent) for parent in candidate.get("parents") or ()]
        for candidate in (words.mapping(event.get("candidate")) for event in trials.values())
    }
    # A verdict may be given anew with more seeds: the last one stands.
    verified = {words.clean(event.get("trial")): event for event in events if event.get("event") == "verified"}
    return [
        _version(search, trials[trial], asked.get(trial, {}), verdict, parents, _decision(trials[trial], module, trail))
        for trial, verdict in verified.items()
        if trial in trials
    ]


def _version(
    search: Search,
    ended: Event,
    asked: Event,
    verdict: Event,
    parents: Mapping[str, Sequence[str]],
    decision: Event | None,
) -> Version:
    trial, candidate = words.clean(ended.get("id")), words.mapping(ended.get("candidate"))
    identity, gain = words.clean(candidate.get("id")), verdict.get("gain")
    lineage = _lineage(identity, parents)
    tags = {
        "verdict": verdict.get("verdict"),
        "gain": words.gain(gain),
        "against": verdict.get("against"),
        **_decided(decision),
        "candidate": identity,
        "operator": candidate.get("operator"),
        "family": asked.get("family"),
        "certificate": "passed" if ended.get("certificate") else "none",
        "lineage": ", ".join(lineage) or "none",
        "trial": trial,
        "search": search.name,
        "started": search.started,
    }
    return Version(
        search,
        trial,
        identity,
        words.clean(verdict.get("verdict")),
        words.number(words.mapping(gain).get("mean")),
        None if decision is None else words.clean(decision.get("event")),
        words.tags(tags),
        _description(candidate, verdict, lineage, decision),
    )


def _lineage(candidate: str, parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Its ancestors, the nearest first."""
    found: dict[str, None] = {}
    generation = list(parents.get(candidate, ()))
    while generation and len(found) < _ANCESTORS:
        found.update(dict.fromkeys(generation))
        older = dict.fromkeys(one for parent in generation for one in parents.get(parent, ()))
        generation = [one for one in older if one not in found and one != candidate]
    return list(found)


def _decision(ended: Event, module: str, trail: Sequence[Event]) -> Event | None:
    """The last decision on this architecture, wherever it was found."""
    identity = words.mapping(ended.get("candidate")).get("id")
    about = [e for e in trail if e.get("space") == module and words.mapping(e.get("candidate")).get("id") == identity]
    return about[-1] if about else None


def _decided(decision: Event | None) -> dict[str, Any]:
    if decision is None:
        return {}
    return {
        "decision": decision.get("event"),
        **{f"decision.{name}": decision.get(name) for name in ("by", "why", "when")},
    }


def _description(candidate: Mapping[str, Any], verdict: Event, lineage: Sequence[str], decision: Event | None) -> str:
    """The version's page, as Markdown that shows others' text as text."""
    against = words.told(verdict.get("against"), 80)
    mean, low, high = (words.number(words.mapping(verdict.get("gain")).get(n)) for n in ("mean", "low", "high"))
    gain = "no gain was measured" if mean is None else f"{mean:+.4f} bits per byte"
    between = "no interval" if low is None or high is None else f"95% interval from {low:+.4f} to {high:+.4f}"
    sections = [
        # In plain words: the list of versions shows the beginning as it is.
        f"{words.told(verdict.get('verdict'), 40)}: {gain} over {against}, {between}.",
        f"**Motivation:** {words.told(candidate.get('motivation'), 900) or 'none was given'}",
        f"**Lineage:** {words.told(', '.join(lineage), 600) or 'it has no parents'}",
    ]
    if decision is None:
        sections.append("**Decision:** none yet. A person decides, with nas approve or nas reject.")
    else:
        what = ACTIONS.get(str(decision.get("event")), "decided on")
        by, when, why = (words.told(decision.get(name), 300) for name in ("by", "when", "why"))
        sections.append(f"**Decision:** {what} by {by} on {when}: {why}")
    return "\n\n".join(sections)


def _aliases(module: str, versions: Sequence[Version], trail: Sequence[Event]) -> dict[str, Version]:
    found = {}
    open_ = [v for v in versions if v.verdict == "better" and v.decision is None and v.gain is not None]
    if open_:
        found[CANDIDATE] = max(open_, key=lambda version: version.gain or 0.0)
    if standing := list(approved(map(dict, trail), module)):
        approval = next(e for e in reversed(trail) if e["event"] == "approve" and e["candidate"]["id"] == standing[-1])
        same = [version for version in versions if version.candidate == standing[-1]]
        # The very trial that was approved, if the architecture was found more than once.
        same.sort(key=lambda v: (v.search.name == approval["search"], v.trial == approval["trial"]))
        if same:
            found[CHAMPION] = same[-1]
    return found
