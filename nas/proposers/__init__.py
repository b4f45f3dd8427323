"""Who writes candidates: one proposer a file, each a function of its arguments alone.

So to resume a search is to replay its journal: the same request gives the same candidate.
"""

from collections.abc import Callable

from nas.proposers.folder import FolderProposer
from nas.proposers.grammar import GrammarProposer
from nas.proposers.request import Exhausted, Proposer, Request
from nas.settings import ProposerSettings
from nas.space import SearchSpace

__all__ = ["PROPOSERS", "Exhausted", "Proposer", "Request", "make_proposer"]

PROPOSERS: dict[str, Callable[[ProposerSettings, SearchSpace], Proposer]] = {
    "grammar": lambda settings, space: GrammarProposer(space),
    "folder": lambda settings, space: FolderProposer(settings.path),
}


def make_proposer(settings: ProposerSettings, space: SearchSpace) -> Proposer:
    """The proposer that the settings name.

    Raises:
      UserError: with one sentence, if what it needs isn't there.
    """
    return PROPOSERS[settings.kind](settings, space)
