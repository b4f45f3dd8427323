"""From Hydra's YAML to `Settings`: composed, typed and checked, with one clear line for what is wrong."""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser  # public in none of Hydra's modules
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from nas.errors import UserError
from nas.settings import Settings, is_url

CONFIG_MODULE, CONFIG_NAME = "nas_conf", "config"
_LLM_ON_RESUME = ("base_url", "key_env", "prices", "timeout_seconds", "retries", "backoff_seconds", "concurrency")
_LLM_CAPS = ("calls_per_minute", "max_dollars", "max_tokens_total", "max_calls", "ahead", "patience_seconds")
_CHANGEABLE_ON_RESUME = (
    *("search.trials", "search.confirm_seeds", "budget", "sandbox", "execution", "tracking", "notes_dir", "store"),
    "search.shared",
    *(f"llm.{name}" for name in (*_LLM_ON_RESUME, *_LLM_CAPS)),
)
_CHANGEABLE_IN_REPLAY = (
    *("proposer", "name", "results_dir", "store", "notes_dir"),
    *("budget.minutes", "sandbox", "execution", "tracking"),
)
_BEFORE = {  # what a journal means that was written before there was such a setting
    "search.noise_baselines": 1,
    "search.explore": 0.0,
    "search.draws": 1,
    "search.shared": None,
    "meta.contexts": False,
    "search_space.approved": False,
    "train.accumulate": 1,
    "store": None,
}
_IN_VERIFICATION = ("verify", "execution", "sandbox", "tracking", "results_dir")
_IN_REPRODUCTION = (
    *("execution", "sandbox", "results_dir", "corpus.path", "corpus.tokenizer"),  # the corpus is known by its hash
    *("train.timeout_seconds", "budget.gate_seconds", "budget.memory_gib"),
)
_MADE_OF = ("model", "train", "task", "corpus", "scheduler", "probe", "search_space.module")  # what a training is
_ALWAYS_IN_REPLAY = ("proposer", "name", "results_dir", "store", "resume")  # named or not
_FREE = ("llm.extra_body", "fitness.probes", "table.parts", "meta.weights")  # mappings whose keys are not ours
_HINTS = (
    "To append to your config",
    "Config search path:",
    "Set the environment variable HYDRA_FULL_ERROR",
    "See http",
)


class ConfigurationError(UserError):
    """A key or a value is wrong. The message is one line."""


def settings_of(config: DictConfig | Mapping[str, Any]) -> Settings:
    """The typed settings of a composed configuration.

    Raises:
      ConfigurationError: naming the key, for an unknown one, a value of the wrong type or out of range.
    """
    try:
        values: Any = config
        if isinstance(config, DictConfig):
            values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        leaves = _flat(values)
        for key in leaves:
            if not any(_is_in(name, [key]) for name in _KEYS):
                raise ConfigurationError(f"there is no key {key}")
        for key, value in leaves.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigurationError(f"{key}={value} must be finite")
        return TypeAdapter(Settings).validate_python(values)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_sentence(problem) for problem in error.errors())) from error
    except OmegaConfBaseException as error:
        raise ConfigurationError(_one_line(error)) from error


def as_recorded(config: Mapping[str, Any]) -> Settings:
    """The settings that a journal begins with; an older one is read as what its search did.

    Raises:
      ConfigurationError: if they are damaged.
    """
    return settings_of(_nested(_BEFORE | _flat(config)))


def _sentence(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "value_error":  # from a __post_init__, which names the key itself
        return str(problem["ctx"]["error"])
    return f"{key}={problem['input']}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def check(arguments: Sequence[str]) -> None:
    """Composes and checks what a command line asks for, each value of a sweep in turn, before anything is run.

    Raises:
      ConfigurationError: for the first thing that is wrong.
    """
    parsed, unknown = get_args_parser().parse_known_args(list(arguments))
    if unknown:
        raise ConfigurationError(f"there is no option {unknown[0]}: nas search --help")
    overlay = [f"hydra.searchpath=[file://{Path(parsed.config_dir).resolve()}]"] if parsed.config_dir else []
    for single in _single_runs(parsed.overrides) if parsed.multirun else [parsed.overrides]:
        settings_of(composed([*single, *overlay]))


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration under these overrides, as Hydra composes it.

    Raises:
      ConfigurationError: if Hydra can't compose it, or a part of it was taken out.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            config = compose(CONFIG_NAME, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(_one_line(error)) from error
    except ValueError as error:  # GROUP=null
        raise ConfigurationError(f"{' '.join(overrides)}: {_one_line(error)}") from error
    finally:
        GlobalHydra.instance().clear()
    leaves = list(_flat(OmegaConf.to_container(config)))
    for name in _KEYS:
        if not _is_in(name, leaves):
            raise ConfigurationError(f"{name} can't be left out")
    return config


def _single_runs(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The first run of a sweep, then one run for each further value: a wrong value anywhere is found."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigurationError(_one_line(error)) from error
    choices = [
        [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()]
        if item.is_sweep_override()
        else [item.input_line or ""]
        for item in parsed
    ]
    first = [values[0] for values in choices]
    yield first
    for position, values in enumerate(choices):
        for value in values[1:]:
            yield [*first[:position], value, *first[position + 1 :]]


def resumed(folder: Path, recorded: Mapping[str, Any], asked: Settings, overrides: Sequence[str]) -> Settings:
    """The settings of an earlier search, changed only where that can't make its results incomparable.

    Args:
      folder: of that search; it may have been moved.
      recorded: its settings, as JSON values.
      asked: what `overrides` make of the defaults: the values of what they name are taken from there.

    Raises:
      ConfigurationError: if an override would change what the search measures.
    """
    why = "can't be changed on resume, since earlier trials ran without it"
    if is_url(asked.resume or ""):  # then results_dir is where its folder is made
        overrides = [override for override in overrides if not override.startswith("results_dir=")]
    values = _changed(recorded, asked, overrides, _CHANGEABLE_ON_RESUME, why)
    return settings_of(_nested({**values, "resume": str(folder), "results_dir": str(folder.parent)}))


def replayed(recorded: Settings, asked: Settings, overrides: Sequence[str]) -> Settings:
    """The settings of a recorded search, changed only in where and on what it is done again.

    Raises:
      ConfigurationError: if an override would change what happens.
    """
    why = "can't be changed in a replay, which takes the settings of its record"
    values = _changed(asdict(recorded), asked, overrides, _CHANGEABLE_IN_REPLAY, why)
    always = {name: value for name, value in _flat(asdict(asked)).items() if _is_in(name, _ALWAYS_IN_REPLAY)}
    return settings_of(_nested({**values, **always}))


def verifying(recorded: Settings, asked: Settings, overrides: Sequence[str], results_dir: str) -> Settings:
    """The settings of a finished search, with those by which it is verified.

    Args:
      results_dir: where the search lies now; it may have been moved.

    Raises:
      ConfigurationError: if an override would change what its candidates are.
    """
    why = "can't be changed in a verification, which compares under the search's own settings"
    values = _changed(asdict(recorded), asked, overrides, _IN_VERIFICATION, why)
    always = {name: value for name, value in _flat(asdict(asked)).items() if _is_in(name, ["verify"])}
    return settings_of(_nested({**values, **always, "results_dir": results_dir}))


def reproducing(recorded: Settings, asked: Settings, overrides: Sequence[str], results_dir: str) -> Settings:
    """The settings of a search, to train one of its trials again under.

    Args:
      results_dir: where the search lies now; it may have been moved.

    Raises:
      ConfigurationError: if an override would change what was trained.
    """
    why = "can't be changed in a reproduction, which takes the settings of its record"
    values = _changed(asdict(recorded), asked, overrides, _IN_REPRODUCTION, why)
    return settings_of(_nested({**values, "results_dir": results_dir}))


def unrecorded(config: Any) -> list[str]:
    """Settings that a training is made of and a journal's settings do not say: their defaults may be others by now."""
    said = (_BEFORE | _flat(config)) if isinstance(config, Mapping) else {}
    return [name for name in _KEYS if _is_in(name, _MADE_OF) and not _is_in(name, list(said))]


def _changed(
    recorded: Mapping[str, Any], asked: Settings, overrides: Sequence[str], changeable: Sequence[str], why: str
) -> dict[str, Any]:
    """Dotted name -> value: as recorded, and as asked where an override names what may be changed."""
    values, new = _BEFORE | _flat(recorded), _flat(asdict(asked))
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        if key != "resume" and not _is_in(key, changeable):
            raise ConfigurationError(f"{override} {why}; only {', '.join(changeable)} can")
        values.update({name: value for name, value in new.items() if _is_in(name, [key])})
    return values


def _one_line(error: Exception) -> str:
    """Hydra's message without its hints, with the key that was probably meant."""
    text = " ".join(str(error).split())
    for hint in _HINTS:
        text = text.partition(hint)[0]
    if unknown := re.match(r"Could not override '([^']+)'", text):
        if unknown[1] in _FREE:
            return f"{unknown[1]} takes names of your own, each with a plus: +{unknown[1]}.NAME=VALUE"
        similar = difflib.get_close_matches(unknown[1], [*_KEYS, *(name.partition(".")[0] for name in _KEYS)], n=1)
        return f"there is no key {unknown[1]}" + (f": did you mean {similar[0]}?" if similar else "")
    text, _, where = text.partition(" full_key: ")
    return f"{where.split()[0]}: {text}" if where else text.strip()


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of each setting."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat.update(_flat(value, f"{key}.") if isinstance(value, Mapping) and key not in _FREE else {key: value})
    return flat


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_flat`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, name = key.split(".")
        group = nested
        for part in path:
            group = group.setdefault(part, {})
        group[name] = value
    return nested


def _is_in(key: str, groups: Sequence[str]) -> bool:
    """Whether a dotted name is one of `groups`, or in one."""
    return any(key == group or key.startswith(f"{group}.") for group in groups)


_KEYS = tuple(_flat(asdict(Settings())))  # dotted names of all settings
