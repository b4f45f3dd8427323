"""Who writes candidates: one proposer a file, each a function of its arguments alone.

So to resume a search is to replay its journal: the same request gives the same candidate. The search waits for most of
them; `llm` works ahead (`AheadProposer`), and the grammar stands in for it.
"""

from collections.abc import Callable

from nas.proposers.folder import FolderProposer
from nas.proposers.grammar import GrammarProposer
from nas.proposers.random import RandomProposer
from nas.proposers.request import AheadProposer, Exhausted, Interrupted, NoProposal, Proposal, Proposer, Request
from nas.settings import ProposerSettings
from nas.space import SearchSpace

__all__ = [
    "PROPOSERS",
    "AheadProposer",
    "Exhausted",
    "Interrupted",
    "NoProposal",
    "Proposal",
    "Proposer",
    "Request",
    "make_proposer",
]

PROPOSERS: dict[str, Callable[[ProposerSettings, SearchSpace], Proposer]] = {
    "grammar": lambda settings, space: GrammarProposer(space),
    "random": lambda settings, space: RandomProposer(space),
    "folder": lambda settings, space: FolderProposer(settings.path),
    "llm": lambda settings, space: GrammarProposer(space),  # where nothing came of the team, or not in time
}


def make_proposer(settings: ProposerSettings, space: SearchSpace) -> Proposer:
    """The proposer that the search waits for, by its settings.

    Raises:
      UserError: with one sentence, if what it needs isn't there.
    """
    return PROPOSERS[settings.kind](settings, space)
