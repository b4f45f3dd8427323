"""The answers of an earlier search, from its journal: no endpoint, no key, nothing to pay."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from nas.journal import Event
from nas.llm.client import Call, Stopped, Unavailable, prompt_of
from nas.llm.spending import CapReached
from nas.settings import LlmSettings


class Recorded:
    """Answers each call as it was answered, and tells the same events of it, failed attempts too.

    The prompt's hash in them is of the prompt as it is now: where prompts have changed, that shows.

    Args:
      events: of the recorded search.
      note: takes the events of a call.
    """

    def __init__(self, settings: LlmSettings, events: Sequence[Event], note: Callable[[Event], None]):
        self._settings = settings
        self._note = note
        self._calls: dict[tuple[str, int], list[Event]] = defaultdict(list)
        self._ended: dict[str, str] = {}  # work -> why it came to nothing, or "" where rules had the last word
        for event in events:
            if event["event"] in ("completion", "call_failed"):
                self._calls[event["work"], event["call"]].append(event)
            elif event["event"] == "no_proposal":
                self._ended[event["work"]] = event["reason"]
            elif event["event"] == "analysis":
                self._ended[f"a-{event['trial']}"] = ""

    def complete(self, call: Call) -> str:
        """The recorded answer.

        Raises:
          Unavailable: if the call failed.
          CapReached: if a cap had left no room for it, or for another attempt.
          Stopped: if the record ends before it.
        """
        prompt, _ = prompt_of(call, self._settings)
        last: Event | None = None
        for event in self._calls[call.work, call.number]:
            last = {name: value for name, value in event.items() if name != "time"}
            self._note({**last, "prompt": prompt})
        if last is None or last.get("again"):
            if call.work in self._ended:
                raise CapReached(self._ended[call.work].removesuffix(" is reached"))
            raise Stopped
        if last["event"] == "call_failed" and last["kind"] == "stopped":
            raise Stopped
        if last["event"] == "call_failed":
            raise Unavailable(last["kind"], last["reason"])
        return str(last["text"])

    def close(self) -> None:
        """There is nothing to end."""
