"""Proposals by a team of LLM roles: a researcher writes, an engineer mends, an analyst says what was learned.

The roles are prompts (`nas/llm/prompts`); what they decide is checked by code. What a prompt shows is chosen from the
journal alone: parents and inspirations from the archive, notes from the cognition base, lessons from the analyses. The
loop of roles is that of ASI-Arch (Liu et al. 2025, https://arxiv.org/abs/2507.18074), edits as in AlphaEvolve (Novikov
et al. 2025, https://arxiv.org/abs/2506.13131), models by a bandit as in ShinkaEvolve (Lange et al. 2025,
https://arxiv.org/abs/2509.19349).
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Protocol

from nas import lessons
from nas.archive import Archive, curve_of
from nas.errors import UserError
from nas.journal import Event
from nas.knowledge import Knowledge, Note
from nas.lessons import Lessons
from nas.llm import answers
from nas.llm.answers import Unusable
from nas.llm.client import Call, Stopped, Unavailable
from nas.llm.similarity import Tokens, nearest, normal_tokens
from nas.llm.spending import CapReached, Spending
from nas.llm.standing import Standing
from nas.llm.templates import AGAIN, Message, Templates
from nas.proposers.request import Interrupted, Job, NoProposal, Proposal, Request
from nas.settings import Settings
from nas.space import SearchSpace
from nas.types import ELSEWHERE, Candidate, Crashed, Fitness, Operator, Rejected, Trial, source_id, trial_from_json

INVENT = Operator("invent", "Adds a mechanism that none of the parents has, from the notes or of your own.")
NAME = "llm"

_SAME_IDEA = 0.6  # token similarity below which a repair is an idea of its own, whatever the engineer says
_SIBLINGS = 6  # that an analyst is shown
_EVOLVE_EVERY = 24  # trials by an LLM
_VARIANTS = 4  # of a prompt, at the most
_SHOWN = ("flops_per_token", "params", "state_bytes", "exponents")  # of a certificate
_ANSWER_LETTERS = 20_000  # of an unusable answer that is sent back


class Completions(Protocol):
    """Where answers come from: an endpoint, or the record of a search."""

    def complete(self, call: Call) -> str:
        """The answer. Raises `Unavailable`, `CapReached` or `Stopped`."""
        ...

    def close(self) -> None: ...


class LlmProposer:
    """Satisfies `nas.proposers.AheadProposer`.

    Args:
      completions: who answers.
      note: takes an event of a job's to the journal; from any thread.
    """

    def __init__(
        self,
        settings: Settings,
        space: SearchSpace,
        completions: Completions,
        knowledge: Knowledge,
        templates: Templates,
        note: Callable[[Event], None],
    ):
        self.operators: Sequence[Operator] = (*space.operators, INVENT)
        self._settings = settings
        self._space = space
        self._completions = completions
        self._knowledge = knowledge
        self._templates = templates
        self._note = note
        self._standing = Standing(settings.llm, settings.meta)
        self._spending = Spending(settings.llm)
        self._lessons = Lessons()
        self._tried: dict[str, str] = {}  # candidate id -> source
        self._tokens: dict[str, Tokens] = {}  # of those, as far as they were asked for
        self._families: dict[str, str] = {}  # the same
        self._children: dict[str, list[dict[str, Any]]] = {}  # parent -> what its children came to, for an analyst
        self._repairs: Counter[str] = Counter()  # trial -> times that its idea was mended
        self._mended: dict[str, str] = {}  # work -> trial whose candidate it mends
        self._unusable: set[tuple[str, int]] = set()  # (work, call) whose answer was told to be unusable
        self._judged: set[str] = set()  # works of which the judge's opinion was told
        self._counts: Counter[str] = Counter()  # for the editor
        self._reasons: list[str] = []

    # what the events say

    def take(self, event: Event) -> None:
        kind = event["event"]
        self._standing.take(event)
        self._spending.take(event)
        if kind == "draw" and event["repair_of"]:
            self._mended[event["work"]] = event["repair_of"]
        elif kind == "ask":
            self._tried.setdefault(event["candidate"]["id"], event["candidate"]["source"])
            self._repairs[event["trial"]] = self._repairs_before(event.get("work"))
        elif kind == "guest":
            self._tried.setdefault(event["candidate"]["id"], event["candidate"]["source"])
        elif kind == "unusable":
            self._unusable.add((event["work"], event["call"]))
            self._counts["unusable answers"] += 1
        elif kind == "opinion":
            self._judged.add(event["work"])
        elif kind == "analysis":
            self._lessons.take(event)
        elif kind == "trial" and event["purpose"] == "search":
            self._take_trial(trial_from_json(event), event["gain"])

    def _repairs_before(self, work: str | None) -> int:
        mended = self._mended.get(work or "")
        return self._repairs[mended] + 1 if mended else 0

    def _take_trial(self, trial: Trial, gain: float | None) -> None:
        words = _outcome_in_words(trial)
        for parent in trial.candidate.parents[:1]:
            of_parent = self._children.setdefault(parent, [])
            of_parent.append(
                {"id": trial.candidate.id, "motivation": trial.candidate.motivation, "gain": gain, "outcome": words}
            )
            del of_parent[:-_SIBLINGS]
        if trial.candidate.proposer == NAME:
            self._counts["trials"] += 1
            self._counts["better than the best parent"] += (gain or 0.0) > 0
            if isinstance(trial.outcome, Rejected | Crashed):
                self._counts["rejected or crashed"] += 1
                self._reasons = [*self._reasons, words][-8:]

    def away(self) -> str | None:
        try:
            self._spending.check()
        except CapReached as cap:
            return f"{cap} is reached: the grammar goes on alone"
        return None if self._standing.usable() else self._standing.why_none()

    def repairable(self, trial: Trial) -> bool:
        broken = isinstance(trial.outcome, Rejected) or (
            isinstance(trial.outcome, Crashed) and trial.outcome.cause not in ELSEWHERE
        )
        again = self._repairs[trial.id] < self._settings.llm.repairs
        return broken and again and trial.candidate.proposer == NAME and self.away() is None

    # plans

    def plan(self, request: Request, archive: Archive) -> Mapping[str, Any]:
        settings, rng = self._settings.llm, request.rng
        model = self._standing.choose_model(rng)
        if request.repair:  # the engineer is shown the message, and nothing that would lead elsewhere
            return {"model": model, "kind": "repair", "inspirations": [], "notes": [], "lessons": [], "prompt": None}
        parents = list(request.parents)
        parts = self._space.describe(parents[0].source) if parents else {}
        notes = self._knowledge.search(self._query(request, archive), settings.notes, self._standing.note_credit())
        return {
            "model": model,
            "kind": self._kind(request, rng),
            "inspirations": self._inspirations(parents, archive),
            "notes": [note.id for note in notes],
            "lessons": self._lessons.for_operator(request.operator.name, parts, settings.lessons),
            "prompt": self._standing.choose_prompt(rng),
        }

    def _kind(self, request: Request, rng: random.Random) -> str:
        if len(request.parents) > 1:
            return "crossover"
        return "rewrite" if rng.random() < self._settings.llm.rewrite else "diff"

    def _query(self, request: Request, archive: Archive) -> str:
        """Words for the notes: the change to make, and what the parent is weak in."""
        words = [request.operator.name, request.operator.describe]
        if request.parents and (trial := archive.trial_of(request.parents[0].id)):
            baselines = [other for other in archive.ranked() if other.purpose == "baseline"]
            words += lessons.weaknesses(trial, baselines)
            words += self._space.lacks(trial.candidate.source)
        return " ".join(words)

    def _inspirations(self, parents: Sequence[Candidate], archive: Archive) -> list[list[str]]:
        """[id, why] of others worth knowing: the best, the best of another family, and the latest."""
        known = {parent.id for parent in parents}
        ranked = [trial for trial in archive.possible_parents() if trial.candidate.id not in known]
        families = {self._family(parent) for parent in parents}
        diverse = (trial for trial in ranked if self._family(trial.candidate) not in families)
        recent = sorted((trial for trial in ranked if trial.purpose == "search"), key=lambda trial: trial.id)
        found: dict[str, str] = {}
        for why, trial in (("best", next(iter(ranked), None)), ("diverse", next(diverse, None))):
            if trial:
                found.setdefault(trial.candidate.id, why)
        for trial in reversed(recent):
            found.setdefault(trial.candidate.id, "recent")
        return [list(pair) for pair in list(found.items())[: self._settings.llm.inspirations]]

    def _family(self, candidate: Candidate) -> str:
        if candidate.id not in self._families:
            self._families[candidate.id] = self._space.family(candidate.source)
        return self._families[candidate.id]

    # jobs

    def job(self, work: str, request: Request, plan: Mapping[str, Any], archive: Archive) -> Job:
        known = dict(self._tried)
        if request.repair:
            messages = self._engineer_messages(request, request.repair, archive)
            return lambda: _explained(lambda: self._mend(work, request, request.repair, plan, messages, known))
        messages = self._researcher_messages(request, plan, archive)
        return lambda: _explained(lambda: self._write(work, request, plan, messages, known))

    def _write(
        self,
        work: str,
        request: Request,
        plan: Mapping[str, Any],
        messages: Sequence[Message],
        known: Mapping[str, str],
    ) -> Proposal:
        """The researcher's work."""

        def read(text: str) -> tuple[answers.Proposal, str]:
            answer = answers.parse(answers.Proposal, text)
            source = answers.source_of(answer, request.parents[0].source if request.parents else "")
            self._refuse_copies(source, known, {parent.id for parent in request.parents})
            return answer, source

        (answer, source), calls = self._ask("researcher", work, plan["model"], messages, answers.Proposal, read)
        candidate = Candidate(
            source,
            request.operator.name,
            tuple(parent.id for parent in request.parents),
            NAME,
            _prose(answer.motivation, answer.because),
            predicted_gain=answer.predicted_gain,
        )
        if self._settings.llm.judge:
            self._judge(work, calls, plan["model"], candidate, request.parents)
        return Proposal(candidate)

    def _mend(
        self,
        work: str,
        request: Request,
        broken: Trial | None,
        plan: Mapping[str, Any],
        messages: Sequence[Message],
        known: Mapping[str, str],
    ) -> Proposal:
        """The engineer's work. What it changed too much of is an idea of its own."""
        assert broken is not None
        before = broken.candidate

        def read(text: str) -> tuple[answers.Repair, str]:
            answer = answers.parse(answers.Repair, text)
            source = answers.source_of(answer, before.source)
            self._refuse_copies(source, known, {before.id})
            return answer, source

        (answer, source), _ = self._ask("engineer", work, plan["model"], messages, answers.Repair, read)
        found = nearest(normal_tokens(source), {before.id: normal_tokens(before.source)})
        same = answer.same_idea and found is not None and found[1] >= _SAME_IDEA
        if same:
            mended = replace(before, source=source, motivation=f"{before.motivation} (mended: {answer.motivation})")
        else:
            mended = replace(before, source=source, motivation=answer.motivation, predicted_gain=None)
        return Proposal(mended, own_idea=not same)

    def analysis(self, trial: Trial, rules: Event, archive: Archive) -> Job | None:
        told = isinstance(trial.outcome, Fitness | Rejected | Crashed)
        if not (told and self._settings.llm.analyst) or self.away() is not None:
            return None
        model = self._standing.usable()[0]
        messages = self._analyst_messages(trial, rules, archive)

        def analyse() -> Event:
            read = partial(answers.parse, answers.Analysis)
            try:
                answer, _ = self._ask("analyst", f"a-{trial.id}", model, messages, answers.Analysis, read)
            except (NoProposal, Unavailable, CapReached):
                return rules
            # What was measured stays what it is: the model's part are the words.
            return {**rules, "by": model, "text": answer.text, "lesson": answer.lesson}

        return lambda: _explained(analyse)

    def side_job(self, event: Event) -> tuple[str, Job] | None:
        """The editor's, after so many trials of the team's."""
        number, rest = divmod(self._counts["trials"], _EVOLVE_EVERY)
        ours = event["purpose"] == "search" and event["candidate"]["proposer"] == NAME
        due = self._settings.llm.evolve_prompts and ours and rest == 0 and number <= _VARIANTS
        if not due or self.away() is not None:
            return None
        work, name, parent = f"e{number:04d}", f"researcher-{number}", self._standing.best_prompt()
        model = self._standing.usable()[0]
        values = {
            **self._common(None),
            "text": self._standing.variants.get(parent) or self._templates.text("researcher"),
            "counts": dict(self._counts),
            "reasons": list(self._reasons),
        }
        messages = self._templates.render("editor", values)

        def evolve() -> Event:
            read = partial(answers.parse, answers.Prompt)
            answer, _ = self._ask("editor", work, model, messages, answers.Prompt, read)
            return {"event": "prompt", "work": work, "name": name, "of": parent, "text": answer.text, "model": model}

        return work, lambda: _explained(evolve)

    def close(self) -> None:
        self._completions.close()

    # calls

    def _ask(
        self,
        role: str,
        work: str,
        model: str,
        messages: Sequence[Message],
        form: type[Any],
        read: Callable[[str], Any],
    ) -> tuple[Any, int]:
        """(what `read` makes of the first answer that it can use, calls made). An unusable answer is sent back.

        Raises:
          NoProposal: if none can be used.
        """
        name, schema = answers.schema(form)
        asked = list(messages)
        for number in range(self._settings.llm.attempts):
            text = self._completions.complete(
                Call(work, number, role, model, tuple(asked), name, schema, _seed(self._settings.seed, work, number))
            )
            try:
                return read(text), number + 1
            except Unusable as error:
                problem = error
            self._tell_unusable(work, number, role, model, problem)
            again = self._templates.render(AGAIN, {**self._common(None), **_complaint(problem)})
            asked = [*messages, {"role": "assistant", "content": text[:_ANSWER_LETTERS]}, *again]
        raise NoProposal(f"no usable answer in {self._settings.llm.attempts}; the last: {problem}")

    def _tell_unusable(self, work: str, number: int, role: str, model: str, problem: Unusable) -> None:
        if (work, number) not in self._unusable:  # a resumed search comes by here again
            told = {"work": work, "call": number, "role": role, "model": model}
            self._note({"event": "unusable", **told, "kind": problem.kind, "reason": problem.reason})

    def _judge(self, work: str, number: int, model: str, candidate: Candidate, parents: Sequence[Candidate]) -> None:
        """An opinion for the record; without one the candidate goes on all the same."""
        values = {"source": candidate.source, "parents": [parent.source for parent in parents]}
        name, schema = answers.schema(answers.Opinion)
        messages = self._templates.render("judge", {**self._common(None), **values})
        seed = _seed(self._settings.seed, work, number)
        text = self._completions.complete(Call(work, number, "judge", model, tuple(messages), name, schema, seed))
        try:
            opinion = answers.parse(answers.Opinion, text)
        except Unusable as problem:
            self._tell_unusable(work, number, "judge", model, problem)
            return
        if work not in self._judged:  # a resumed search comes by here again
            self._note({"event": "opinion", "work": work, "model": model, **opinion.model_dump()})

    def _refuse_copies(self, source: str, known: Mapping[str, str], alike: set[str]) -> None:
        """Raises Unusable for what was tried before, but for its looks, its names or its constants.

        Args:
          alike: ids of what it may resemble: its parents, and what it mends.
        """
        copy = source_id(source)
        if copy in known:
            raise _Resembling("copy", f"it is {copy}, which was tried, but for its looks", copy, 1.0, known)
        others = {name: self._tokens_of(name, text) for name, text in known.items() if name not in alike}
        found = nearest(normal_tokens(source), others, self._settings.llm.similar)
        if found:
            raise _Resembling(
                "near copy",
                f"it is {found[0]}, which was tried, but for names and constants: change what it computes",
                *found,
                known,
            )

    def _tokens_of(self, name: str, source: str) -> Tokens:
        if name not in self._tokens:
            self._tokens[name] = normal_tokens(source)
        return self._tokens[name]

    # what prompts show

    def _common(self, archive: Archive | None) -> dict[str, Any]:
        settings, cap = self._settings, None
        if archive:
            reference = self._space.baselines()[self._space.reference].id
            trial = archive.trial_of(reference)
            if trial and trial.certificate:
                cap = settings.budget.flops_per_token * trial.certificate.flops_per_token
        params = min(settings.budget.params, settings.model.layer_params - 1) * settings.model.width**2
        limits = {
            "max_params": round(params),
            "max_flops_per_token": cap,
            "train_time": settings.train.time,
            "width": settings.model.width,
            "heads": settings.model.heads,
        }
        return {"space": self._space.name, "contract": self._space.contract, "limits": limits}

    def _researcher_messages(self, request: Request, plan: Mapping[str, Any], archive: Archive) -> Sequence[Message]:
        inspirations = [
            {**self._shown(trial), "why": why}
            for name, why in plan["inspirations"]
            if (trial := archive.trial_of(name))
        ]
        notes = [
            {"id": name, "text": _note_in_full(self._knowledge.notes[name])}
            for name in plan["notes"]
            if name in self._knowledge.notes
        ]
        baselines = [
            (trial.candidate.name, trial.outcome.bits_per_byte)
            for trial in archive.ranked()
            if trial.purpose == "baseline" and isinstance(trial.outcome, Fitness)
        ]
        values = {
            **self._common(archive),
            "operator": asdict(request.operator),
            "kind": plan["kind"],
            "parents": [self._shown_candidate(parent, archive) for parent in request.parents],
            "inspirations": inspirations,
            "notes": notes,
            "lessons": plan["lessons"],
            "baselines": baselines,
            "noise": archive.noise(self._settings.train.steps),
        }
        return self._templates.render("researcher", values, self._standing.variants.get(plan["prompt"]))

    def _engineer_messages(self, request: Request, broken: Trial, archive: Archive) -> Sequence[Message]:
        outcome = broken.outcome
        assert isinstance(outcome, Rejected | Crashed)
        left = self._settings.llm.repairs - self._repairs[broken.id] - 1
        values = {
            **self._common(archive),
            "source": broken.candidate.source,
            "motivation": broken.candidate.motivation,
            "check": outcome.check if isinstance(outcome, Rejected) else outcome.cause,
            "reason": outcome.reason,
            "repairs_left": left,
        }
        return self._templates.render("engineer", values)

    def _analyst_messages(self, trial: Trial, rules: Event, archive: Archive) -> Sequence[Message]:
        parents = [known for name in trial.candidate.parents if (known := archive.trial_of(name))]
        siblings = [
            child
            for parent in trial.candidate.parents[:1]
            for child in self._children.get(parent, [])
            if child["id"] != trial.candidate.id
        ]
        parts = self._space.describe(parents[0].candidate.source) if parents else {}
        values = {
            **self._common(archive),
            "candidate": {**self._shown(trial), "operator": trial.candidate.operator},
            "parents": [self._shown(parent) for parent in parents],
            "siblings": siblings,
            "predicted_gain": trial.candidate.predicted_gain,
            "gain": rules["gain"],
            "noise": archive.noise(self._settings.train.steps),
            "outcome": _outcome_in_words(trial),
            "rules": rules["text"],
            "lessons": self._lessons.for_operator(trial.candidate.operator, parts, self._settings.llm.lessons),
        }
        return self._templates.render("analyst", values)

    def _shown_candidate(self, candidate: Candidate, archive: Archive) -> dict[str, Any]:
        trial = archive.trial_of(candidate.id)
        assert trial is not None, "parents are chosen in the archive"
        return self._shown(trial)

    def _shown(self, trial: Trial) -> dict[str, Any]:
        """A trial for a prompt: nothing by a clock in it, so that the same search has the same prompts."""
        bits = trial.outcome.bits_per_byte if isinstance(trial.outcome, Fitness) else None
        certificate = trial.certificate
        return {
            "id": trial.candidate.id,
            "source": trial.candidate.source,
            "motivation": trial.candidate.motivation,
            "curve": sorted(curve_of(trial).items()),
            "bits_per_byte": bits,
            "certificate": certificate and {name: getattr(certificate, name) for name in _SHOWN},
            "family": self._family(trial.candidate),
        }


class _Resembling(Unusable):
    """An answer that is too much like a candidate that was tried."""

    def __init__(self, kind: str, reason: str, name: str, similarity: float, known: Mapping[str, str]):
        super().__init__(kind, reason)
        self.resembles = {"id": name, "similarity": similarity, "source": known[name]}


def _complaint(problem: Unusable) -> dict[str, Any]:
    return {"kind": problem.kind, "problem": problem.reason, "resembles": getattr(problem, "resembles", None)}


def _explained(work: Callable[[], Any]) -> Any:
    """What `work` makes; a reason in words where nothing comes of it."""
    try:
        return work()
    except Unavailable as error:
        raise NoProposal(str(error)) from error
    except CapReached as cap:
        raise NoProposal(f"{cap} is reached", "cap") from cap
    except Stopped as error:
        raise Interrupted from error
    except (UserError, NoProposal, Interrupted):
        raise
    except Exception as error:  # a mistake of ours costs one proposal, not the search
        raise NoProposal(f"the engine failed: {type(error).__name__}: {error}", "engine") from error


def _seed(seed: int, work: str, number: int) -> int:
    """Of one call: fixed by the search's seed."""
    return int(hashlib.sha256(f"{seed}/{work}/{number}".encode()).hexdigest()[:7], 16)


def _prose(*parts: str) -> str:
    return " ".join(part.strip() for part in parts if part.strip())


def _note_in_full(note: Note) -> str:
    parts = {"Claim": note.claim, "Evidence": note.evidence, "Helps": note.helps, "Hurts": note.hurts}
    lines = [note.title, *(f"{name}: {text}" for name, text in parts.items() if text), note.citation]
    return "\n".join(filter(None, lines))


def _outcome_in_words(trial: Trial) -> str:
    outcome = trial.outcome
    if isinstance(outcome, Fitness):
        early = ", stopped there by the scheduler" if trial.stopped else ""
        return f"{outcome.bits_per_byte:.4f} bits per byte at step {outcome.step}{early}"
    if isinstance(outcome, Rejected):
        return f"rejected by {outcome.check}: {outcome.reason}"
    if isinstance(outcome, Crashed):
        return f"crashed ({outcome.cause}): {outcome.reason}"
    return f"held ({outcome.tripwire}): {outcome.reason}"
