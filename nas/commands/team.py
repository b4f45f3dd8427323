"""The LLM proposer, put together: client, prompts, notes. Needs the extra `llm`."""

from collections.abc import Callable, Sequence

from nas.journal import Event
from nas.knowledge import Knowledge
from nas.llm.client import Client, base_url
from nas.llm.recorded import Recorded
from nas.llm.spending import Spending
from nas.llm.templates import Templates
from nas.proposers.llm import LlmProposer
from nas.settings import Settings
from nas.space import SearchSpace


def check(settings: Settings) -> None:
    """Raises UserError for a prompt or an address that can't be used."""
    Templates(settings.llm.prompts)
    base_url(settings.llm)


def asking(
    settings: Settings,
    space: SearchSpace,
    known: Knowledge,
    key: str,
    events: Sequence[Event],
    note: Callable[[Event], None],
    keep: Callable[[str, Event], None],
) -> LlmProposer:
    """One that asks the endpoint.

    Args:
      events: of this search so far: what they paid for is not paid for again.
      note: takes an event to the journal.
      keep: stores a prompt by its hash.
    """
    spending = Spending(settings.llm)
    client = Client(settings.llm, key, spending, note, keep)
    for event in events:
        client.take(event)
        spending.take(event)
    return LlmProposer(settings, space, client, known, Templates(settings.llm.prompts), note)


def replaying(
    settings: Settings, space: SearchSpace, known: Knowledge, record: Sequence[Event], note: Callable[[Event], None]
) -> LlmProposer:
    """One that gives the recorded answers."""
    answers = Recorded(settings.llm, record, note)
    return LlmProposer(settings, space, answers, known, Templates(settings.llm.prompts), note)
