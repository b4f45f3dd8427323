"""From Hydra's YAML to `Settings`: composed, typed and checked, with one clear line for what is wrong."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from nas.errors import UserError
from nas.settings import Settings

CONFIG_MODULE, CONFIG_NAME = "nas_conf", "config"
_CHANGEABLE_ON_RESUME = ("resume", "search.trials", "budget.", "execution.", "tracking.")


class ConfigurationError(UserError):
    """A key or a value is wrong. The message is one line."""


def settings_of(config: DictConfig | Mapping[str, Any]) -> Settings:
    """The typed settings of a composed configuration.

    Raises:
      ConfigurationError: naming the key, for a value of the wrong type or out of range.
    """
    try:
        values: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
        if unknown := set(_keys(values)) - set(_keys(asdict(Settings()))):
            raise ConfigurationError(f"there is no key {min(unknown)}")
        return TypeAdapter(Settings).validate_python(values)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_sentence(problem) for problem in error.errors())) from error
    except OmegaConfBaseException as error:
        raise ConfigurationError(_one_line(error)) from error


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
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    for single in _single_runs(overrides):
        settings_of(composed(single))


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration under these overrides, as Hydra composes it."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            return compose(CONFIG_NAME, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(_one_line(error)) from error
    finally:
        GlobalHydra.instance().clear()


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


def resumed(folder: Path, recorded: Mapping[str, Any], overrides: Sequence[str]) -> Settings:
    """The settings of an earlier search, changed only where that can't make its results incomparable.

    Raises:
      ConfigurationError: if an override would change what the search measures.
    """
    for override in overrides:
        if not override.lstrip("+").startswith(_CHANGEABLE_ON_RESUME):
            allowed = ", ".join(name.rstrip(".") for name in _CHANGEABLE_ON_RESUME[1:])
            raise ConfigurationError(
                f"{override} can't be changed on resume, since earlier trials ran without it; only {allowed} can"
            )
    values = OmegaConf.create(dict(recorded))
    changes = [override for override in overrides if "." in override.partition("=")[0]]
    merged = OmegaConf.merge(values, OmegaConf.from_dotlist(changes))
    assert isinstance(merged, DictConfig)
    OmegaConf.update(merged, "resume", str(folder))
    return settings_of(merged)


def _one_line(error: Exception) -> str:
    """Hydra's message without its hints, with the key that was probably meant."""
    text = " ".join(str(error).split())
    for hint in ("To append to your config", "Config search path:", "Set the environment variable HYDRA_FULL_ERROR"):
        text = text.partition(hint)[0]
    if unknown := re.match(r"Could not override '([^']+)'", text):
        similar = difflib.get_close_matches(unknown[1], list(_keys(asdict(Settings()))), n=1)
        return f"there is no key {unknown[1]}" + (f": did you mean {similar[0]}?" if similar else "")
    return text.strip()


def _keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings."""
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
