"""`docs/llm.md` says what is so: its commands compose, and every file, setting, variable and event in it is there."""

import re
import shlex

import pytest
from common import ROOT

from nas import cli
from nas.configuration import check, composed, settings_of
from nas.llm.templates import PROMPTS, ROLES, VALUES
from nas.settings import LlmSettings
from nas.tally import FAILURES, UNUSABLE

DOC = (ROOT / "docs" / "llm.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
QUOTED = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", DOC, flags=re.MULTILINE | re.DOTALL))
COMMANDS = [line for text in (*BLOCKS, *QUOTED) for line in text.splitlines() if line.startswith("nas ")]
SEARCHES = [line for line in COMMANDS if line.startswith("nas search ")]
OVERRIDES = [text for text in QUOTED if re.fullmatch(r"'?\+?llm\.\w+(\.\w+)?=.+", text)]
FIELDS = LlmSettings.__dataclass_fields__


def test_there_are_commands_for_each_kind_of_endpoint() -> None:
    for option in ("llm=vllm", "llm=ollama", "llm=openai", "llm.base_url=", "resume=", "proposer=replay"):
        assert any(option in command for command in SEARCHES), option


@pytest.mark.parametrize("command", SEARCHES)
def test_a_search_composes(command: str) -> None:
    check(shlex.split(command, comments=True)[2:])


@pytest.mark.parametrize("text", OVERRIDES)
def test_an_override_composes(text: str) -> None:
    check(["proposer=llm", "llm.models=[NAME]", "llm.prices=[{model: NAME, input: 1, output: 1}]", *shlex.split(text)])


def test_a_models_name_with_a_colon_or_a_slash_arrives_whole() -> None:
    names = [re.findall(r"llm\.models=\[(.*?)\]", command) for command in SEARCHES]
    for (name,) in filter(None, names):
        models = settings_of(composed(["proposer=llm", f"llm.models=[{name}]"])).llm.models
        assert models == tuple(name.split(","))


@pytest.mark.parametrize("command", COMMANDS)
def test_there_is_such_a_command(command: str) -> None:
    assert f"nas {command.split()[1]}" in cli.HELP


def test_every_setting_is_one() -> None:
    named = set(re.findall(r"\bllm\.([a-z_]+)", DOC)) - {"md"}
    assert named and named <= FIELDS.keys()


def test_every_default_is_the_default() -> None:
    stated = re.findall(r"`llm\.(\w+)` = (\d+)", DOC)
    shipped = settings_of(composed([])).llm
    assert stated and all(getattr(shipped, name) == float(value) for name, value in stated)


def test_every_file_is_there() -> None:
    named = re.findall(r"\b(?:nas|conf|search_spaces)/[\w/.]*\w", DOC)
    assert named and all((ROOT / name).exists() for name in named)
    for name in re.findall(r"`(\w+\.md)`", DOC):
        assert (PROMPTS / name).is_file(), name


@pytest.mark.parametrize("role", [*ROLES, "again"])
def test_each_prompt_is_listed_with_its_variables(role: str) -> None:
    (row,) = re.findall(rf"^\| `{role}\.md` \| (.*) \|$", DOC, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == VALUES[role].keys()


def test_every_kind_of_failure_has_its_line() -> None:
    rows = " ".join(re.findall(r"^\|(.*?)\|.*\|.*\|$", DOC[DOC.index("## When it fails") :], re.MULTILINE))
    assert set(re.findall(r"`([^`]+)`", rows)) == FAILURES | UNUSABLE
