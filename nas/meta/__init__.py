"""Which mutation operator to try next: the meta-learner.

A policy gives the probability of each operator, so that every choice can be logged with it and policies can be compared
off-line (`nas.meta.offline`). Credit is the child's gain over its parent; a gain within the noise, a rejection and a
crash are zero. What is held earns nothing either way until a person accepts it. What a policy has learned can be
carried into the next search (`nas.meta.posterior`).
"""

from collections.abc import Mapping, Sequence

from nas.meta.policies import (
    AdaptivePursuit,
    DiscountedThompson,
    DiscountedUcb,
    Fixed,
    Foresight,
    Policy,
    SlidingWindowUcb,
    Uniform,
)
from nas.meta.posterior import Measured, Posterior
from nas.settings import MetaSettings

__all__ = ["POLICIES", "DiscountedUcb", "Measured", "Policy", "Posterior", "make_policy"]

POLICIES: Mapping[str, type[Policy]] = {
    "ducb": DiscountedUcb,
    "swucb": SlidingWindowUcb,
    "thompson": DiscountedThompson,
    "pursuit": AdaptivePursuit,
    "foresight": Foresight,
    "uniform": Uniform,
    "fixed": Fixed,
}


def make_policy(settings: MetaSettings, operators: Sequence[str], prior: Posterior | None = None) -> Policy:
    """The policy that the settings name, with what an earlier search has learned if there is a `prior`.

    Raises:
      ValueError: without operators.
    """
    policy = POLICIES[settings.kind](operators, settings)
    if prior:
        policy.start_from(prior, settings.prior_weight)
    return policy
