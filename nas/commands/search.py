"""`nas search`: one search from its settings to its result, new or resumed."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from nas import journal as journals
from nas import replay as replays
from nas.approvals import TRAIL, approved, read_trail
from nas.commands import proposing
from nas.commands.containment import contained
from nas.commands.environment import environment_of
from nas.commands.folder import JOURNAL, Folder
from nas.commands.guests import guests_of
from nas.commands.kept_noise import fetch_noise, keep_noise, noise_file, read_noise
from nas.commands.meta import first_prior
from nas.commands.proposing import Record
from nas.commands.report import refresh
from nas.commands.shown import as_shown, store_of
from nas.commands.stored import Stored, bring_results, found, stored
from nas.commands.trial_spec import spec_of
from nas.configuration import replayed, resumed
from nas.errors import UserError
from nas.garbage import collect_seldom
from nas.journal import Event, Journal
from nas.live import LiveView
from nas.meta import Posterior
from nas.noise import Noise, noise_from_json
from nas.replay import RECORD_ENDS
from nas.search import Assignment, Search, baselines_of, rung_steps
from nas.seeded import seeded
from nas.settings import ProposerSettings, Settings, is_url
from nas.shared_trial import shared
from nas.sharing.corpus import bring, fetched
from nas.sharing.journal import Mirror
from nas.space import SearchSpace, load_space
from nas.store import Store
from nas.summary import Summary, summarize
from nas.tally import Tally
from nas.tasks.corpus import Corpus, CorpusError, prepare
from nas.terminal import make_console
from nas.trial import ANY, PROBING, TrialSpec, compiled_folder
from nas.types import Candidate, Fitness, Rung, candidate_from_json, candidate_to_json

_STOPPING = "stopping: what has finished is kept, and what runs will go on from its last rung on resume"


def search(settings: Settings, overrides: Sequence[str] = ()) -> int:
    """Runs a search to its end, or to a cap or an interrupt. Returns the exit code.

    Raises:
      UserError: with one sentence for the person.
    """
    if settings.cluster.kind != "none":
        raise UserError(f"cluster={settings.cluster.kind} is where nas submit sends a search: nas search runs it here")
    console = make_console()
    say = partial(console.print, markup=False, soft_wrap=True)
    going_on, at = None, None
    if settings.resume:
        going_on, at = found(settings, say)
    begun = journals.read(going_on.journal)[:1] if going_on else []
    if going_on:
        if not begun or begun[0]["event"] != "search":
            raise journals.JournalError(f"{going_on.journal} has no search in it: start a new one")
        settings = resumed(going_on.path, begun[0]["config"], settings, overrides)
        settings = replace(settings, store=at.root.url if at else None)
    record = proposing.record_at(Path(settings.proposer.path or "")) if settings.proposer.kind == "replay" else None
    if record and not going_on:
        settings = replayed(record.settings, settings, overrides)
    seeds = _seeds(settings, begun or (record.events if record else []))
    space = seeded(load_space(settings.search_space.module), seeds)
    proposing.check(settings, space)
    if settings.store:
        Store(settings.store)  # one that nothing here reaches is known before the corpus is read
    baselines_of(settings, space)  # a wrong name is known before the corpus is read
    contained(settings, console)
    cache = Path(settings.results_dir) / ".cache"
    corpus = (fetched(at.root, begun[0]["corpus"], cache) if at else None) or prepare(settings.corpus, cache)
    corpus.require_windows(settings.train.time)
    if going_on and begun[0]["corpus"]["sha256"] != corpus.sha256:
        raise CorpusError(
            f"the corpus is no longer that of {going_on.name}: results would not compare, so start a new search"
        )
    if record and record.events[0]["corpus"]["sha256"] != corpus.sha256:
        raise CorpusError(f"the corpus is no longer that of {record.name}: its search can't be replayed on it")
    folder = going_on or _new_folder(settings)
    at = at or stored(settings.store, folder)
    if at:
        bring(at.root, corpus, say)
        fetch_noise(at.root, noise_file(settings, space, corpus))
    code = _run(_with_whole_paths(settings), folder, at, space, seeds, corpus, record, overrides)
    if code == 0:
        refresh(folder, settings, [], console)
    if at and code != 1:
        bring_results(at, folder, noise_file(settings, space, corpus), say)
    return code


def _seeds(settings: Settings, begun: Sequence[Event]) -> list[Candidate]:
    """What persons have approved: of a search that goes on or is replayed, when it began."""
    if begun:
        return [candidate_from_json(one) for one in begun[0].get("approved", [])]
    if not settings.search_space.approved:
        return []
    trail = read_trail(Path(settings.results_dir) / TRAIL)
    return list(approved(trail, settings.search_space.module).values())


def _run(
    settings: Settings,
    folder: Folder,
    at: Stored | None,
    space: SearchSpace,
    seeds: Sequence[Candidate],
    corpus: Corpus,
    replay: Record | None,
    overrides: Sequence[str],
) -> int:
    from nas.execution import tune  # Ray takes a second to import: errors above should not wait for it

    collect_seldom()
    key = proposing.key_of(settings)
    journal = Journal(folder.journal, proposing.secret(key))
    events = journals.read(folder.journal)  # under its lock: no other process can add to it now
    console = make_console()
    say = partial(console.print, markup=False, soft_wrap=True)
    with contextlib.ExitStack() as stack:
        stack.callback(journal.close)
        mirror = Mirror(at.place, journal, at.copy, say) if at else None
        if mirror:
            mirror.claim()
            stack.callback(mirror.close)
        review = f"nas review {folder.path}"
        view = stack.enter_context(LiveView(folder.name, settings.search.trials, console, review))
        view.catch_up(events)
        tally = Tally()
        kept = noise_file(settings, space, corpus)
        listeners = [
            *(view.write, tally.take, lambda event: store_trial(folder, event)),
            lambda event: keep_noise(kept, event, settings),
        ]
        for event in events:
            tally.take(event)
            store_trial(folder, event)
        guests = None if replay else guests_of(settings, corpus, folder.name, events)  # a replay has its record's
        if guests:
            stack.callback(guests.close)
            listeners.append(guests.take)
        if tracker := _tracker(settings, folder):
            stack.callback(tracker.close)
            listeners.append(lambda event: tracker.write(as_shown(folder, event)))
            for event in events:
                listeners[-1](event)

        def record(event: Event) -> None:
            if event["event"] == "trial":
                event = {**event, "corpus": corpus.sha256}
            written = journal.append(event)
            for listener in listeners:
                listener(written)

        proposer = replay.settings.proposer if replay else settings.proposer
        as_proposed = replace(settings, proposer=proposer)

        def note(event: Event) -> None:
            searched.note(event)

        prior = first_prior(events or (replay.events if replay else []), settings.meta)
        ahead = proposing.proposer_of(as_proposed, space, folder.path, events, note, replay, key)
        searched = Search(
            as_proposed,
            space,
            record,
            compressed_bits_per_byte=corpus.compressed_bits_per_byte,
            ahead=ahead,
            script=proposing.script_of(replay),
            noise=_known_noise(kept, settings, events, replay, console),
            prior=prior,
            next_guest=guests.next if guests else lambda: None,
        )
        stack.callback(searched.close)
        if mirror:
            mirror.start(ended=searched.stop)
        searched.replay(events)
        going_on = {"event": "resume", "overrides": list(overrides), **environment_of(settings)}
        searched.note(going_on if events else _first_event(settings, proposer, folder, seeds, corpus, prior))
        console.print(_opening(settings, folder, corpus, resumed=bool(events)), markup=False, soft_wrap=True)

        def spec(assignment: Assignment) -> TrialSpec:
            return assigned_spec(assignment, searched, settings, space, corpus, folder)

        try:
            with _interruptible(searched, console):
                preload = [*sorted(space.allowed_imports), *([PROBING] if settings.probe.size != "none" else [])]
                tune.run(searched, spec, preload, _earlier_rungs(events), folder.path / "ray.log", say)
                searched.close()  # what is still being written about its trials is told before its end
        except BaseException as error:
            searched.close()
            with contextlib.suppress(journals.JournalError):
                record({"event": "end", "reason": f"{type(error).__name__}: {error}", "best": None, "summary": ""})
            raise
        summary = summarize(searched, llm=tally)
        _store_best(folder, summary)
        best = summary.best.id if summary.best else None
        front = {"pareto": asdict(summary.front)} if summary.front else {}
        record({"event": "end", "reason": searched.end_reason, "best": best, "summary": summary.markdown(), **front})
    summary.show(console, folder.path, searched.end_reason or "")
    if replay:
        console.print(_compared(replay, folder), soft_wrap=True, markup=False)
    return _exit_code(searched.end_reason or "")


def _known_noise(
    kept: Path, settings: Settings, events: Sequence[Event], replay: Record | None, console: Console
) -> Noise | None:
    """The noise that need not be measured. A resumed search has its own; a replay does as its record did."""
    if replay:
        cached = [event for event in replay.events if event["event"] == "noise" and event["source"] == "cached"]
        return noise_from_json(cached[0]) if cached else None
    if events or not settings.search.noise_seeds:
        return None
    noise, problem = read_noise(kept, settings)
    if problem:
        console.print(problem, markup=False, soft_wrap=True)
    return noise


def _compared(replay: Record, folder: Folder) -> str:
    """Whether a replay is what it replays."""
    events = journals.read(folder.journal)
    difference = replays.difference(replay.events, events)
    if difference is None:
        return f"Replay: identical to {replay.name} in all {len(events)} events, but for clocks."
    return f"Replay: not identical to {replay.name}: {difference}."


def _with_whole_paths(settings: Settings) -> Settings:
    """The journal keeps paths that hold in any folder, since a search may be resumed from another one."""

    def whole(path: str | None) -> str | None:
        return str(Path(os.path.expanduser(path)).resolve()) if path and not is_url(path) else path

    tokenizer = settings.corpus.tokenizer
    return replace(
        settings,
        path=whole(settings.path),
        notes_dir=whole(settings.notes_dir) or settings.notes_dir,
        llm=replace(settings.llm, prompts=whole(settings.llm.prompts)),
        corpus=replace(
            settings.corpus,
            path=whole(settings.corpus.path),
            tokenizer=tokenizer if tokenizer in ("bytes", "bpe") else whole(tokenizer) or "",
        ),
        proposer=replace(settings.proposer, path=whole(settings.proposer.path)),
        meta=replace(settings.meta, prior=whole(settings.meta.prior)),
        search=replace(settings.search, shared=whole(settings.search.shared)),
    )


def _exit_code(reason: str) -> int:
    """0 if the search ended as it should, at a cap too; 130 after an interrupt; 1 if it could not go on."""
    if reason == "interrupted":
        return 130
    return 0 if reason.startswith(("trials", "budget.", RECORD_ENDS)) else 1


def _new_folder(settings: Settings) -> Folder:
    """A folder that no search has used. Raises UserError if it can't be made, or if the given name is taken."""
    root = Path(settings.results_dir)
    name = settings.name or f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_seed{settings.seed}"
    for number in range(1, 1000):
        path = root / (name if number == 1 else f"{name}_{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if _never_begun(path):
                return Folder(path)
            if settings.name:
                raise UserError(
                    f"there is a search in {path}: go on with resume={path}, or choose another name="
                ) from None
            continue
        except OSError as error:
            raise UserError(f"results_dir={root}: the folder can't be made: {error.strerror}") from error
        return Folder(path)
    raise UserError(f"results_dir={root} has no room for another {name}")


def _never_begun(path: Path) -> bool:
    """Whether a search was killed in this folder before its first event: there is nothing in it to go on with."""
    journal = path / JOURNAL
    return path.is_dir() and (not journal.exists() or not journal.read_bytes().count(b"\n"))


def _tracker(settings: Settings, folder: Folder) -> Any:
    if settings.tracking.kind == "none":
        return None
    from nas.tracking import MlflowTracker

    uri, artifacts = store_of(settings)
    again = f"nas search resume={folder.path} writes what is missing"
    return MlflowTracker(uri, artifacts, settings.tracking.experiment, how_to_rebuild=again)


def _first_event(
    settings: Settings,
    proposer: ProposerSettings,
    folder: Folder,
    seeds: Sequence[Candidate],
    corpus: Corpus,
    prior: Posterior | None,
) -> Event:
    """What the journal begins with. `proposer` is the one of the recorded search in a replay."""
    return {
        "event": "search",
        "name": folder.name,
        "seed": settings.seed,
        "config": asdict(settings),
        "proposer": asdict(proposer),
        "corpus": asdict(corpus),
        "prior": prior.to_json() if prior else None,
        "approved": [candidate_to_json(one) for one in seeds],
        **environment_of(settings),
    }


def _opening(settings: Settings, folder: Folder, corpus: Corpus, resumed: bool) -> str:
    verb = "going on with" if resumed else "searching in"
    rungs = ", ".join(map(str, rung_steps(settings)))
    kind = settings.proposer.kind
    models = f" ({', '.join(settings.llm.models)})" if kind == "llm" else ""
    text = f"{corpus.name} corpus ({corpus.text_bytes['train'] / 1e6:.1f} MB)"
    if corpus.tokenizer != "bytes":
        text += f" in {corpus.vocabulary:,} tokens of {corpus.tokenizer}"
    return (
        f"{verb} {folder.path}: {settings.search.trials} candidates by {kind}{models}, operators by "
        f"{settings.meta.kind}, {text}, rungs at steps {rungs}"
    )


def assigned_spec(
    assignment: Assignment, searched: Search, settings: Settings, space: SearchSpace, corpus: Corpus, folder: Folder
) -> TrialSpec:
    """What a worker is sent."""
    proposed = assignment.purpose == "search"
    spec = spec_of(
        assignment.candidate,
        assignment.purpose,
        assignment.budget,
        settings,
        space,
        corpus,
        folder.trial(assignment.trial).resolve(),
        known=searched.known_functions() if proposed and not assignment.rungs else {},
        reference_flops=searched.reference_flops_per_token() if proposed else None,
        contends_below=_best_so_far(searched) if proposed else ANY,
        compiled=compiled_folder(settings),
    )
    at = shared(settings.store, folder.name, assignment.trial, corpus) if settings.store else None
    return replace(spec, shared=at)


def _best_so_far(searched: Search) -> float:
    """Bits per byte that a candidate must beat to be a contender; any, where more than these make the score."""
    fitness = searched.settings.fitness
    if fitness.kind != "bits_per_byte" or fitness.judge:
        return ANY
    best = [trial.outcome for trial in (searched.best("search"), searched.best("baseline")) if trial]
    return min((fitness.bits_per_byte for fitness in best if isinstance(fitness, Fitness)), default=ANY)


def _earlier_rungs(events: Sequence[Event]) -> dict[str, list[Rung]]:
    """Rungs of the trials that had ended, for the scheduler. What is held, and not accepted, sets no bar for others.

    In the run in which it was held its rungs stay on the scheduler's books: that only stops others earlier.
    """
    accepted = {event["trial"] for event in events if event["event"] == "review" and event["decision"] == "accept"}
    return {
        event["id"]: [Rung(**rung) for rung in event["rungs"]]
        for event in events
        if event["event"] == "trial"
        and event["purpose"] != "confirm"
        and (event["outcome"]["kind"] != "held" or event["id"] in accepted)
    }


@contextlib.contextmanager
def _interruptible(searched: Search, console: Console) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the search in good order; a second one ends the process."""

    def interrupt(number: int, frame: Any) -> None:
        if searched.end_reason == "interrupted":
            raise KeyboardInterrupt
        searched.stop("interrupted")
        # From a thread: the view may be drawing, under a lock that this very thread waits for.
        threading.Thread(target=console.print, args=(_STOPPING,), daemon=True).start()

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _store_best(folder: Folder, summary: Summary) -> None:
    """Leaves the best candidate's source and certificate where a person finds them."""
    if summary.best:
        (folder.path / "best.py").write_text(summary.best.candidate.source, encoding="utf-8")
        if summary.best.certificate:
            (folder.path / "best.certificate.json").write_text(json.dumps(asdict(summary.best.certificate), indent=2))


def store_trial(folder: Folder, event: Event) -> None:
    """Leaves the source and certificate of what was tried beside what the trial left.

    Written elsewhere and moved there: the candidate's own process could have put a link in the place.
    """
    if event["event"] != "trial":
        return
    files = {"candidate.py": event["candidate"]["source"]}
    if event["certificate"]:
        files["certificate.json"] = json.dumps(event["certificate"], indent=2)
    for name, text in files.items():
        with contextlib.suppress(OSError):  # a copy: the journal has it, and says so where the disk is full
            partial = folder.path / f".{event['id']}.partial"
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")
            folder.trial(event["id"]).mkdir(parents=True, exist_ok=True)
            partial.replace(folder.trial(event["id"]) / name)
