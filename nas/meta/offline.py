"""What another policy would have earned, estimated from the logged choices of one that was used.

Every choice is in the journal with its probability, so that a reward can be weighted by how much likelier the other
policy was to make that choice: inverse-propensity scoring (Horvitz and Thompson 1952), its self-normalised form, and
the doubly robust estimate (Dudik et al. 2011, https://arxiv.org/abs/1103.4601), which asks the weights to correct a
model of the rewards only. The policy learns from the log as it goes, as it would have on line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.meta.evidence import Context, Evidence
from nas.meta.policies import Policy
from nas.statistics import Interval, mean_interval

_POOLING = 4.0  # of the model of the rewards


@dataclass(frozen=True)
class Decision:
    """One logged choice and what came of it.

    Attributes:
      weights: operator -> probability of its choice; 0 for one that could not be chosen.
      gain: what was credited (>= 0).
      contexts: operator -> what the parent was like.
    """

    weights: Mapping[str, float]
    operator: str
    gain: float
    contexts: Mapping[str, Context]


@dataclass(frozen=True)
class Estimates:
    """Credit a trial, in the unit of the logged gains. `overlap`: effective share of the log that speaks for it."""

    logged: Interval
    propensity: Interval
    self_normalised: float
    doubly_robust: Interval
    overlap: float


def estimates(decisions: Sequence[Decision], policy: Policy) -> Estimates:
    """What `policy` would have earned where these choices were made.

    Args:
      policy: fresh, of the operators that were chosen among.

    Raises:
      ValueError: without decisions, or if one was made that had no chance.
    """
    if not decisions:
        raise ValueError("there are no choices with a probability in the log")
    model = Evidence(list(decisions[0].weights), 1.0, _POOLING)
    ratios, weighted, robust = [], [], []
    for decision in decisions:
        logged = decision.weights[decision.operator]
        if not logged > 0:
            raise ValueError(f"{decision.operator} was chosen with probability {logged}")
        possible = [name for name, weight in decision.weights.items() if weight > 0]
        wanted = policy.probabilities({}, possible, decision.contexts)
        means = {name: model.mean(name, decision.contexts.get(name, ())) for name in possible}
        ratio = wanted[decision.operator] / logged
        ratios.append(ratio)
        weighted.append(ratio * decision.gain)
        expected = sum(wanted[name] * mean for name, mean in means.items())
        robust.append(expected + ratio * (decision.gain - means[decision.operator]))
        context = decision.contexts.get(decision.operator, ())
        policy.update(decision.operator, decision.gain, context)
        model.update(decision.operator, decision.gain, context)
    return Estimates(
        mean_interval([decision.gain for decision in decisions]),
        mean_interval(weighted),
        sum(weighted) / sum(ratios) if sum(ratios) else 0.0,
        mean_interval(robust),
        sum(ratios) ** 2 / (len(ratios) * sum(ratio**2 for ratio in ratios)) if sum(ratios) else 0.0,
    )
