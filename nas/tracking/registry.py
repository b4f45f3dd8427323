"""MLflow's model registry, written from journals and the trail of approvals. A copy: written again, nothing changes.

Beside `nas.tracking.store` the only file that calls MLflow. It promotes nothing by itself: what the aliases are on
follows from what persons have decided (see `nas.tracking.versions`).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nas.tracking.store import Store, connect, in_words
from nas.tracking.tracker import be_quiet, rebuild, without_password
from nas.tracking.versions import CANDIDATE, CHAMPION, Model, Version, models_of
from nas.tracking.words import search_of
from nas.tracking.writes import Event, Search

_ABOUT = (
    "Architectures that `nas verify` has compared with tuned baselines on fresh seeds and untouched text. The alias "
    "`candidate` is on the best that nobody has decided on yet, `champion` on the last one that a person has approved. "
    "`nas approve`, `nas reject` and `nas rollback` decide; `nas audit registry` writes all this anew."
)


class NotWritten(Exception):
    """MLflow has not taken what it was given. The message is one sentence without a full stop."""


def register(
    searches: Iterable[Sequence[Event]],
    trail: Sequence[Event],
    uri: str,
    artifact_root: str | Path | None,
    experiment: str,
) -> list[str]:
    """Writes what was verified and decided. Returns a line for each model: how many versions, and who has an alias.

    Args:
      searches: the events of each search. One whose runs are not in MLflow yet is written first.
      trail: every decision, oldest first.
      uri, artifact_root, experiment: as `MlflowTracker` takes them.

    Raises:
      NotWritten: if MLflow can't be written. What was written stays.
    """
    be_quiet()
    searches = list(searches)
    try:
        models = models_of(searches, trail)
        runs = _runs(searches, models, uri, artifact_root, experiment) if models else {}
        return [_write(connect(uri), model, runs) for model in models]
    except Exception as error:
        raise NotWritten(f"MLflow at {without_password(uri)} has not taken the registry ({in_words(error)})") from error


def _runs(
    searches: Sequence[Sequence[Event]], models: Sequence[Model], uri: str, artifact_root: Any, experiment: str
) -> dict[tuple[Search, str], str]:
    """(search, trial) -> run, of all that have a version."""
    store = Store(uri, artifact_root, experiment)
    wanted = {(version.search, version.trial) for model in models for version in model.versions}
    found: dict[tuple[Search, str], str] = {}
    for events in searches:
        search = search_of(events[0])
        trials = {trial for one, trial in wanted if one == search}
        runs = store.runs(search) if trials else {}
        if not trials <= runs.keys():
            if missing := rebuild(events, uri, artifact_root, experiment):
                raise OSError(f"{missing} events of {search.name} were not written")
            store.forget()
            runs = store.runs(search)
        found |= {(search, trial): runs[trial] for trial in trials}
    return found


def _write(client: Any, model: Model, runs: dict[tuple[Search, str], str]) -> str:
    known = _known(client, model.name)
    numbers: dict[tuple[Search, str], str] = {}
    for version in model.versions:
        run = runs[version.search, version.trial]
        number = _write_version(client, model.name, version, run, known.get(_key(version.tags)))
        numbers[version.search, version.trial] = number
        if version.decision:  # the run is found by it too
            client.set_tag(run, "decision", version.decision)
    wanted = {alias: numbers[version.search, version.trial] for alias, version in model.aliases.items()}
    aliases = client.get_registered_model(model.name).aliases
    for alias in (CANDIDATE, CHAMPION):
        if alias in wanted and str(aliases.get(alias)) != wanted[alias]:
            client.set_registered_model_alias(model.name, alias, wanted[alias])
        elif alias in aliases and alias not in wanted:
            client.delete_registered_model_alias(model.name, alias)
    told = [
        f"{alias} is version {wanted[alias]} ({model.aliases[alias].candidate})" if alias in wanted else f"no {alias}"
        for alias in (CHAMPION, CANDIDATE)
    ]
    count = f"{len(numbers)} version{'' if len(numbers) == 1 else 's'}"
    return f"{model.name}: {count}, {', '.join(told)}"


def _known(client: Any, name: str) -> dict[tuple[str | None, ...], Any]:
    """The versions that are there, by what they are of; the model is made if need be."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=_ABOUT)
        return {}
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found: dict[tuple[str | None, ...], Any] = {}
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found |= {_key(version.tags): version for version in page}
        token = page.token
        if not token:
            return found


def _key(tags: Any) -> tuple[str | None, ...]:
    return tuple(tags.get(name) for name in ("search", "started", "trial"))


def _write_version(client: Any, model: str, version: Version, run: str, known: Any) -> str:
    """Returns its number."""
    if known is None:
        made = client.create_model_version(
            model,
            f"runs:/{run}/candidate.py",
            run,
            tags=dict(version.tags),
            description=version.description,
            await_creation_for=None,
        )
        return str(made.version)
    number = str(known.version)
    for name, value in version.tags.items():
        if known.tags.get(name) != value:
            client.set_model_version_tag(model, number, name, value)
    if known.description != version.description:
        client.update_model_version(model, number, version.description)
    return number


def attach(begun: Event, path: Path, uri: str, artifact_root: str | Path | None, experiment: str) -> None:
    """Puts a file, e.g. a report, beside the search's other artifacts in MLflow; one of that name is replaced.

    Args:
      begun: the event that the search's journal begins with.

    Raises:
      NotWritten: if MLflow can't be written.
    """
    be_quiet()
    try:
        Store(uri, artifact_root, experiment).attach(search_of(begun), path)
    except Exception as error:
        raise NotWritten(f"MLflow at {without_password(uri)} has not taken {path.name} ({in_words(error)})") from error
