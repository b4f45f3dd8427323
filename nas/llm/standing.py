"""Which model to ask next, and with which prompt: by what came of those asked before.

Rebuilt from the journal's events. Models compete by gain per dollar (of the calls, and of the trial that follows),
prompts by gain, each with the policy that chooses operators; a model that only fails is left alone for a while.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nas.journal import Event
from nas.meta import Policy, make_policy
from nas.settings import LlmSettings, MetaSettings
from nas.types import ELSEWHERE

FIRST_PROMPT = "researcher-0"
_FAILURES = 3  # proposals in a row without a usable answer, after which a model is set aside
_REST = 4  # for so many proposals of others per failure
_HOPELESS = {
    "authentication": "the endpoint refuses the key",
    "not found": "the endpoint has no such model, or llm.base_url is not its root, which often ends in /v1",
}


class Standing:
    """What is known of models, prompts and notes."""

    def __init__(self, settings: LlmSettings, meta: MetaSettings):
        self._settings = settings
        self._models: Policy = make_policy(meta, list(settings.models))
        self._prompts: Policy = make_policy(meta, [FIRST_PROMPT])
        self.variants: dict[str, str] = {}  # prompt -> its system text; the first prompt's is in its file
        self._plans: dict[str, Mapping[str, Any]] = {}  # work -> plan
        self._work_of: dict[str, str] = {}  # trial -> work
        self._dollars: Counter[str] = Counter()  # by work
        self._failures: Counter[str] = Counter()  # of a model in a row
        self._rests_until: dict[str, int] = {}  # model -> proposals of the search
        self._hopeless: dict[str, str] = {}  # model -> why it can't be asked at all
        self._proposals = 0
        self._shown: Counter[str] = Counter()  # note -> trials whose author had seen it
        self._helped: Counter[str] = Counter()  # and how many of these gained

    def take(self, event: Event) -> None:
        kind = event["event"]
        if kind == "draw":
            self._plans[event["work"]] = event["plan"]
        elif kind in ("completion", "call_failed"):
            self._dollars[event["work"]] += event["dollars"]
            if event.get("kind") in _HOPELESS:
                self._hopeless[event["model"]] = f"{_HOPELESS[event['kind']]} ({event['reason']})"
        elif kind == "no_proposal" and event["cause"] == "model":
            self._take_failure(event["work"])
        elif kind == "ask" and event["purpose"] == "search":
            self._proposals += 1
            if event["candidate"]["proposer"] == "llm":
                self._work_of[event["trial"]] = event["work"]
                self._failures[self._plans[event["work"]]["model"]] = 0
        elif kind == "trial" and event["id"] in self._work_of:
            self._take_trial(event)
        elif kind == "prompt":
            self.variants[event["name"]] = event["text"]
            self._prompts.add(event["name"])
        elif kind == "resume":  # there may be another key now, or another endpoint
            for known in (self._hopeless, self._failures, self._rests_until):
                known.clear()

    def _take_failure(self, work: str) -> None:
        if work in self._plans:
            model = self._plans[work]["model"]
            self._failures[model] += 1
            if self._failures[model] >= _FAILURES:
                self._rests_until[model] = self._proposals + _REST * self._failures[model]

    def _take_trial(self, event: Event) -> None:
        outcome = event["outcome"]
        if outcome["kind"] == "held" or outcome.get("cause") in ELSEWHERE:
            return  # no evidence either way
        work = self._work_of[event["id"]]
        plan, gain = self._plans[work], max(event["gain"] or 0.0, 0.0)
        self._models.update(plan["model"], gain / (self._dollars[work] + self._settings.trial_dollars))
        if plan["prompt"]:  # a repair is not by the researcher's
            self._prompts.update(plan["prompt"], gain)
        for note in plan["notes"]:
            self._shown[note] += 1
            self._helped[note] += gain > 0

    def usable(self) -> list[str]:
        """The models that can be asked now."""
        return [
            model
            for model in self._settings.models
            if model not in self._hopeless and self._rests_until.get(model, 0) <= self._proposals
        ]

    def why_none(self) -> str:
        """Why no model can be asked, in a sentence."""
        words = [
            f"{model}: {self._hopeless[model]}"
            if model in self._hopeless
            else f"{model} rests after {self._failures[model]} proposals without a usable answer"
            for model in self._settings.models
        ]
        return f"{'; '.join(words)}: the grammar goes on alone"

    def choose_model(self, rng: random.Random) -> str:
        return _drawn(self._models, self.usable(), rng)

    def choose_prompt(self, rng: random.Random) -> str:
        return _drawn(self._prompts, [FIRST_PROMPT, *self.variants], rng)

    def best_prompt(self) -> str:
        credit = self._prompts.credit()
        return max(credit, key=lambda name: credit[name]["reward"])

    def plan_of(self, trial: str) -> Mapping[str, Any] | None:
        """The plan by which an LLM's candidate came about; None for anybody else's."""
        work = self._work_of.get(trial)
        return self._plans[work] if work else None

    def note_credit(self) -> dict[str, float]:
        """Note -> share of the trials that gained among those whose author had seen it, as if two more had not."""
        return {note: self._helped[note] / (shown + 2) for note, shown in self._shown.items()}


def _drawn(policy: Policy, among: Sequence[str], rng: random.Random) -> str:
    weights = policy.probabilities({}, among)
    return rng.choices(list(weights), list(weights.values()))[0]
