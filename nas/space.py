"""What a search space must provide. The engine knows no architecture family: a space is a plug-in.

A space is a module with an attribute `SPACE` that satisfies `SearchSpace`; configuration names the module.
It imports no JAX: candidates' ops live beside it and are imported by candidates alone, in their box.
"""

import importlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from nas.errors import UserError
from nas.types import Candidate, Operator


class NotApplicable(Exception):
    """This operator has nothing to change in these parents. The message says why."""


class SearchSpace(Protocol):
    """Baselines to start from, operators to go on with, and the words to describe what was found."""

    @property
    def name(self) -> str: ...

    @property
    def allowed_imports(self) -> frozenset[str]:
        """Modules that a candidate may import; `a.b` allows `import a.b` and `from a import b`."""
        ...

    @property
    def operators(self) -> Sequence[Operator]: ...

    @property
    def reference(self) -> str:
        """Name of the baseline whose parameter count every model is matched to."""
        ...

    @property
    def notes(self) -> Path | None:
        """Folder of notes on published mechanisms (see `nas.knowledge`); None if the space has none."""
        ...

    @property
    def contract(self) -> str:
        """What a candidate has to be, in words, for whoever writes one."""
        ...

    def baselines(self) -> Mapping[str, Candidate]:
        """Name -> hand-written candidate that passes the gate."""
        ...

    @property
    def starters(self) -> Sequence[str]:
        """Names of the baselines that a search trains first, unless its configuration names others."""
        ...

    def outside_references(self) -> Mapping[str, Candidate]:
        """Name -> architecture that is trained for comparison only (softmax attention): it need not pass the gate."""
        ...

    def mutate(self, operator: Operator, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A child of `parents` made by `operator`: the same arguments give the same child.

        Raises:
          NotApplicable: if the operator has nothing to change in these parents.
        """
        ...

    def compose(self, genome: Mapping[str, str]) -> Candidate:
        """The candidate that has these parts in its slots (as `describe` names them), and in the others those
        that do least.

        Raises:
          NotApplicable: if there is no such part, or they do not go together.
        """
        ...

    def variants(
        self, operator: Operator, genomes: Sequence[Mapping[str, str]], rng: random.Random
    ) -> Sequence[Mapping[str, str]]:
        """The genomes of what `mutate` could make of these, in its order and with the same draws of `rng`.

        The first is the child's; without one there is no child. Where a space's parts tell less, a child is now and
        then made in vain. Named as `describe` names them. Asked several times for each proposal, so it should be quick.

        Raises:
          NotApplicable: if these genomes say too little.
        """
        ...

    def describe(self, source: str) -> Mapping[str, str]:
        """Slot -> the part that `source` has in it, "custom" where it has one of its own.

        Like the next two it takes any text: candidates that the gate rejects are described too.
        """
        ...

    def lacks(self, source: str) -> Sequence[str]:
        """Search words for known mechanisms that `source` has not, for whoever looks for notes on them."""
        ...

    def context(self, operator: Operator, source: str) -> Sequence[str]:
        """What `source` is like where `operator` would change it, from coarse to fine: what the operator's worth may
        hang on. Few labels: a meta-learner counts trials under each."""
        ...

    def family(self, source: str) -> str:
        """The kind of state transition, e.g. "delta, decay per head": what a collapsed archive has only one of."""
        ...


def load_space(module: str) -> SearchSpace:
    """The space that `module` provides.

    Raises:
      UserError: with one sentence, if there is no such module or it provides no space.
    """
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a plug-in's own mistakes too
        raise UserError(f"search_space.module={module} can't be imported: {error}") from error
    space: SearchSpace | None = getattr(found, "SPACE", None)
    if space is None:
        raise UserError(f"search_space.module={module} has no attribute SPACE")
    return space
