"""From `conf/` to `Settings`: all that is shipped is valid, and what is wrong is one sentence that names it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nas.configuration import ConfigurationError, check, composed, replayed, resumed, settings_of
from nas.fitness import FITNESS
from nas.meta import POLICIES
from nas.proposers import PROPOSERS
from nas.settings import (
    BudgetSettings,
    ExecutionSettings,
    FitnessSettings,
    ProposerSettings,
    Settings,
    TrackingSettings,
)

CONF = Path(__file__).resolve().parents[1] / "conf"
OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
GROUPS = {group for group, _ in OPTIONS} - {"experiment"}
BY_GROUP = {group: [option for name, option in OPTIONS if name == group] for group in sorted(GROUPS)}
NEEDED = {
    ("corpus", "text"): ["path=my_notes"],
    ("corpus", "token_bin"): ["path=my_notes"],
    ("corpus", "huggingface"): ["path=my_notes"],
    ("proposer", "folder"): ["proposer.path=ideas"],
    ("proposer", "replay"): ["proposer.path=ideas"],
    ("proposer", "llm"): ["llm.models=[tiny]"],
    ("experiment", "asi_arch"): ["path=my_tokens"],
    ("experiment", "asi_arch_340m"): ["path=my_tokens"],
}
CHANGEABLE = (
    *("search.trials", "search.confirm_seeds", "budget", "sandbox", "execution", "tracking", "notes_dir", "store"),
    "search.shared",
    *("llm.base_url", "llm.key_env", "llm.prices", "llm.timeout_seconds", "llm.retries", "llm.backoff_seconds"),
    *("llm.concurrency", "llm.calls_per_minute", "llm.max_dollars", "llm.max_tokens_total", "llm.max_calls"),
    *("llm.ahead", "llm.patience_seconds"),
)


@cache
def settings(*overrides: str) -> Settings:
    return settings_of(composed(overrides))


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


DEFAULTS = dict(leaves(asdict(Settings())))


def with_leaf(key: str, value: Any) -> dict[str, Any]:
    """The default settings as plain values, but for one."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(Settings())))
    group, _, name = key.rpartition(".")
    (values[group] if group else values)[name] = value
    return values


def refusal(values: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings_of(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is shipped


def content_of(group: str, option: str) -> dict[str, Any]:
    """What a file of `conf/` says, by dotted name; an experiment's choice of other files left out."""
    content = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
    assert isinstance(content, dict)
    for other in content.pop("defaults", []) if group != "experiment" else ():
        if other != "_self_":
            content = {**OmegaConf.to_container(OmegaConf.load(CONF / group / f"{other}.yaml")), **content}
    content.pop("defaults", None)
    said = dict(leaves(content if group == "experiment" else {group: content}))
    return {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=map(".".join, OPTIONS))
def test_every_option_composes_and_has_the_last_word(group: str, option: str) -> None:
    """Over the default experiment too: `model=base` is not undone by what an experiment writes out."""
    found = dict(leaves(asdict(settings(f"{group}={option}", *NEEDED.get((group, option), [])))))
    said = content_of(group, option)
    needed = dict(override.split("=") for override in NEEDED.get((group, option), []) if "path" in override)
    needed = {f"{group}.path": path for path in needed.values() if f"{group}.path" in said}
    assert {key: found[key] for key in said} == {**said, **needed}


@pytest.mark.parametrize("experiment", [option for group, option in OPTIONS if group == "experiment"])
@pytest.mark.parametrize("number", range(max(map(len, BY_GROUP.values()))))
def test_every_option_goes_with_every_experiment(experiment: str, number: int) -> None:
    chosen = [(group, options[number % len(options)]) for group, options in BY_GROUP.items()]
    needed = [override for choice in chosen for override in NEEDED.get(choice, [])]
    settings(f"experiment={experiment}", *(f"{group}={option}" for group, option in chosen), *needed)


def test_every_group_is_one_of_the_settings_and_has_an_option() -> None:
    nested = {field.name for field in fields(Settings) if is_dataclass(getattr(Settings(), field.name))}
    assert nested == GROUPS | {"search", "walk", "baselines"}


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=map(".".join, OPTIONS))
def test_every_option_is_complete_and_an_experiment_introduces_itself(group: str, option: str) -> None:
    if group == "experiment":
        assert (CONF / group / f"{option}.yaml").read_text().startswith("# @package _global_\n# nas ")
    else:
        said = {key for key in content_of(group, option) if not key.startswith("table.parts.")}  # its keys are free
        assert said == {key for key in DEFAULTS if key.startswith(f"{group}.")}


@pytest.mark.parametrize(
    ("registry", "make", "group"),
    [
        (POLICIES, lambda kind: replace(Settings().meta, kind=kind), "meta"),
        (PROPOSERS, lambda kind: ProposerSettings(kind, "ideas" if kind in ("folder", "replay") else None), "proposer"),
        (FITNESS, FitnessSettings, "fitness"),
    ],
    ids=["meta", "proposer", "fitness"],
)
def test_what_can_be_named_is_what_there_is(registry: Mapping[str, Any], make: Any, group: str) -> None:
    for kind in registry:
        assert make(kind).kind == kind
        assert (group, kind) in OPTIONS, "each has an option"
    with pytest.raises(ValueError, match=rf"^{group}\.kind=nonsense: there (is|are) .*{next(iter(registry))}"):
        make("nonsense")


def test_settings_survive_a_journal() -> None:
    found = settings("corpus=text", "path=my_notes", "search_space.baselines=[gla,retnet]", "seed=7")
    assert settings_of(json.loads(json.dumps(asdict(found), allow_nan=False))) == found
    assert found.corpus.path == "my_notes" and found.search_space.baselines == ("gla", "retnet")


# What is wrong with a value


@pytest.mark.parametrize("key", DEFAULTS)
def test_an_unknown_neighbour_of_every_key_is_refused(key: str) -> None:
    assert refusal(with_leaf(key + "s", 1)) == f"there is no key {key}s" or key + "s" in DEFAULTS


TEXTS = {"name", "store", "resume", "path", "proposer.path", "corpus.path", "llm.base_url", "llm.prompts"}
TEXTS |= {"execution.address", "tracking.uri", "corpus.dataset", "corpus.config"}
TEXTS |= {"verify.path", "verify.copy_to", "meta.prior", "search.shared", "simulate.table", "simulate.transfer"}
TEXTS |= {
    f"cluster.{key}"
    for key in ("python", "image", "namespace", "context", "claim", "secret", "store_secret", "partition", "account")
}
TEXTS |= {key for key, value in DEFAULTS.items() if isinstance(value, str)}


@pytest.mark.parametrize("value", [{}, {"a": 1}, [[1]], "nonsense"], ids=str)
@pytest.mark.parametrize("key", DEFAULTS)
def test_a_value_of_the_wrong_type_is_refused_by_name(key: str, value: Any) -> None:
    if value != "nonsense" or key not in TEXTS:
        assert key in refusal(with_leaf(key, value))


NUMBERS = [key for key, value in DEFAULTS.items() if isinstance(value, float | int)]
CAPS = ["budget.minutes", "budget.device_hours", "execution.workers", "simulate.processes"]


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_can_not_be_nothing(key: str) -> None:
    assert refusal(with_leaf(key, None)).startswith(f"{key}=None: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("key", [*NUMBERS, *CAPS])
def test_no_number_is_infinite(key: str, value: float) -> None:
    assert refusal(with_leaf(key, value)) == f"{key}={value} must be finite"


@pytest.mark.parametrize("key", [*NUMBERS, *CAPS])
def test_every_number_but_the_seed_has_a_range(key: str) -> None:
    if key == "seed":
        assert settings_of(with_leaf(key, -1)).seed == -1
    else:
        assert any(part in refusal(with_leaf(key, -1)) for part in (key, f"{key.partition('.')[0]}."))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("meta.window", 0),
        ("meta.discount", 0),
        ("meta.discount", 1.01),
        ("meta.floor", 1.01),
        ("scheduler.first_rung", 0),
        ("scheduler.first_rung", 1.5),
        ("scheduler.reduction_factor", 1),
        ("train.warmup", 1),
        ("train.clip", 0),
        ("train.learning_rate", 0),
        ("train.steps", 0),
        ("train.seed", 2**31),
        ("model.layer_params", 1),
        ("model.heads", 3),
        ("budget.minutes", 0),
        ("budget.gate_seconds", 0),
        ("execution.workers", 0),
        ("execution.cpus_per_trial", 0),
        ("execution.gpus_per_trial", 1.5),
        ("execution.gpus_per_trial", -1),
        ("execution.tpus_per_trial", 3),
        ("execution.tpus_per_trial", 0.5),
        ("train.accumulate", 0),
        ("search.elites", 0),
        ("task.validation_windows", 1),
        ("name", "a/b"),
        ("name", ".."),
        *((f"{group}.kind", "nonsense") for group in sorted(GROUPS) if "kind" in asdict(getattr(Settings(), group))),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(key: str, value: Any) -> None:
    assert key.partition(".")[0] in refusal(with_leaf(key, value))


# What is wrong with an override


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("sede=1", "there is no key sede: did you mean seed?"),
        ("train.step=1", "there is no key train.step: did you mean train.steps?"),
        ("serch.trials=1", "there is no key serch.trials: did you mean search.trials?"),
        ("a.b.c=3", "there is no key a.b.c"),
        ("+foo=1", "there is no key foo"),
        ("+train.foo=1", "there is no key train.foo"),
        ("+foo={a: 1}", "there is no key foo.a"),
        ("seed=x", "seed=x: input should be a valid integer, unable to parse string as an integer"),
        ("seed=1.5", "seed=1.5: input should be a valid integer, got a number with a fractional part"),
        ("seed=null", "seed=None: input should be a valid integer"),
        ("search=3", "search=3: input should be a dictionary or an instance of SearchSettings"),
        ("search_space.baselines=gla", "search_space.baselines=gla: input should be a valid tuple"),
        ("table.parts={a:[b]}", "table.parts takes names of your own, each with a plus: +table.parts.NAME=VALUE"),
        ("meta=ab", f"In 'config': Could not find 'meta/ab' Available options in 'meta': {' '.join(BY_GROUP['meta'])}"),
        ("llm=nope", f"In 'config': Could not find 'llm/nope' Available options in 'llm': {' '.join(BY_GROUP['llm'])}"),
        ("proposer=llm", "proposer=llm needs llm.models=[NAME], and llm.base_url=URL unless it is OpenAI's own"),
        ("llm.models=[a] llm.max_dollars=1", "llm.max_dollars needs the price of a in llm.prices"),
        ("llm.prices=[{model: a, input: -1, output: 0}]", "llm.prices: the price of a must not be negative"),
        ("proposer=replay", "proposer=replay needs proposer.path=DIR"),
        ("train=null", "train=null: Config group override must be a string or a list. Got NoneType"),
        ("~train.steps", "train.steps can't be left out"),
        ("~search", "search.trials can't be left out"),
        ("corpus=text", "corpus=text needs path=FILE_OR_FOLDER"),
        ("proposer=folder", "proposer=folder needs proposer.path=DIR"),
        ("path=???", "path: Missing mandatory value: path"),
        ("path=${nope}", "path: Interpolation key 'nope' not found"),
        ("budget.minutes=inf", "budget.minutes=inf must be finite"),
        ("budget.minutes=-1", "budget.minutes=-1.0 must be positive"),
        ("model.width=64 model.heads=3", "model.width=64 is no multiple of model.heads=3"),
        (
            "execution.gpus_per_trial=2.5",
            "execution.gpus_per_trial=2.5 must be a fraction of one GPU or a whole number of them",
        ),
        (
            "execution.tpus_per_trial=16",
            "execution.tpus_per_trial=16 must be 0, 1, 2, 4 or 8: chips of one host, since a trial does not run on "
            "several",
        ),
        (
            "execution=gpu execution.tpus_per_trial=4",
            "a trial runs on GPUs or on TPUs: set one of execution.*_per_trial to 0",
        ),
        (
            "execution.gpus_per_trial=4 train.batch=6",
            "train.batch / train.accumulate, 6 windows, can't be shared out equally among execution.gpus_per_trial=4: "
            "make it a multiple of that",
        ),
        (
            "execution.tpus_per_trial=4 train.batch=8 train.accumulate=4",
            "train.batch / train.accumulate, 2 windows, can't be shared out equally among execution.tpus_per_trial=4: "
            "make it a multiple of that",
        ),
        ("train.accumulate=3", "train.batch=4 is no multiple of train.accumulate=3"),
        ("job", "Error parsing override 'job' missing EQUAL at '<EOF>'"),
        ("--foo", "there is no option --foo: nas search --help"),
        ("-m seed=1,x", "seed=x: input should be a valid integer, unable to parse string as an integer"),
        (
            "-m llm=vllm,nope seed=1,2",
            f"In 'config': Could not find 'llm/nope' Available options in 'llm': {' '.join(BY_GROUP['llm'])}",
        ),
        ("-m meta=ducb,uniform seed=1,2 train.steps=5,0", "train.* sizes must be >= 1"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_one_sentence(overrides: str, sentence: str) -> None:
    words = [overrides] if "{" in overrides else overrides.split()
    with pytest.raises(ConfigurationError) as caught:
        check(words)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "override", ["seed=1,2", "meta=ducb,uniform", "seed=range(1,3)", "seed=[1", "=3", "seed=1,,2", "path=\n"]
)
def test_a_broken_override_is_one_line(override: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check([override])
    assert "\n" not in str(caught.value) and str(caught.value).strip()


@pytest.mark.parametrize(
    "words",
    [
        "",
        "-m seed=1,2 meta=uniform,ducb",
        "--multirun seed=range(1,4)",
        "--cfg job",
        "--info all seed=3",
        "--help",
        "search.trials=1e1",
        "~experiment",
        "experiment=smoke search_space.baselines=[]",
        "hydra.sweep.dir=elsewhere",
    ],
)
def test_what_is_right_passes(words: str) -> None:
    check(words.split())


def test_a_folder_of_ones_own_options_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("{width: 32, heads: 2, layers: 1, layer_params: 12}")
    check(["--config-dir", str(tmp_path), "model=mine"])
    assert settings(f"hydra.searchpath=[file://{tmp_path}]", "model=mine", "~experiment").model.layers == 1


# Going on with an earlier search

RECORDED = json.loads(
    json.dumps(asdict(settings("seed=7", "model.width=32", "results_dir=elsewhere", "budget=evening")))
)
FOLDER = Path("/moved/results/first")


def going_on(*overrides: str) -> Settings:
    asked = ["resume=/moved/results/first", *overrides]
    return resumed(FOLDER, RECORDED, settings(*asked), asked)


def test_without_changes_it_is_as_it_was_but_for_its_place() -> None:
    before = settings_of(RECORDED)
    assert going_on() == replace(before, resume=str(FOLDER), results_dir="/moved/results")


def test_from_a_store_it_goes_on_in_whatever_folder_is_given() -> None:
    asked = ["resume=s3://bucket/nas/searches/first", "results_dir=/other", "search.trials=99"]
    found = resumed(FOLDER, RECORDED, settings(*asked), asked)
    assert found == going_on("search.trials=99")
    with pytest.raises(ConfigurationError, match=r"results_dir=/other can't be changed on resume"):
        going_on("results_dir=/other")


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["search.trials=99"], {"search.trials": 99}),
        (["search.confirm_seeds=5"], {"search.confirm_seeds": 5}),
        (["budget.minutes=5"], {"budget.minutes": 5}),
        (["++budget.minutes=null"], {"budget.minutes": None}),
        (["budget=open"], {"budget.minutes": None}),
        (["budget=open", "budget.device_hours=2"], {"budget.minutes": None, "budget.device_hours": 2}),
        (["execution=gpu"], {"execution.gpus_per_trial": 0.25}),
        (["execution.address='ray://head:10001'"], {"execution.address": "ray://head:10001"}),
        (["execution.workers=3", "tracking=none"], {"execution.workers": 3, "tracking.kind": "none"}),
        (["tracking.uri='http://a?b=c'"], {"tracking.uri": "http://a?b=c"}),
    ],
)
def test_what_can_not_change_a_result_can_be_changed(overrides: list[str], changed: dict[str, Any]) -> None:
    assert dict(leaves(asdict(going_on(*overrides)))) == {**dict(leaves(asdict(going_on()))), **changed}


@pytest.mark.parametrize(
    "override",
    [f"{key}={json.dumps(value)}" for key, value in DEFAULTS.items() if value is not None and value != ()]
    + [f"{group}={option}" for group, option in OPTIONS if (group, option) not in NEEDED],
)
def test_what_could_change_a_result_can_not(override: str) -> None:
    key = override.partition("=")[0]
    if any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE):
        going_on(override)
    else:
        with pytest.raises(ConfigurationError) as caught:
            resumed(FOLDER, RECORDED, Settings(), ["resume=x", override])
        assert str(caught.value) == (
            f"{override} can't be changed on resume, since earlier trials ran without it; "
            f"only {', '.join(CHANGEABLE)} can"
        )


@pytest.mark.parametrize(
    "override", ["searchx.trials=1", "search.trials_too=1", "budgets=open", "~budget.minutes", "+seed=1"]
)
def test_what_only_looks_changeable_is_not(override: str) -> None:
    with pytest.raises(ConfigurationError, match="can't be changed on resume"):
        resumed(FOLDER, RECORDED, Settings(), [override])


def test_a_setting_that_is_newer_than_the_journal_has_its_default() -> None:
    older = {key: value for key, value in RECORDED.items() if key != "task"}
    older["train"] = {key: value for key, value in RECORDED["train"].items() if key != "clip"}
    found = resumed(FOLDER, older, Settings(), [])
    assert found.task == Settings().task and found.train == settings_of(RECORDED).train


def test_a_setting_that_is_older_than_the_engine_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^there is no key train\.momentum$"):
        resumed(FOLDER, {**RECORDED, "train": {**RECORDED["train"], "momentum": 0.9}}, Settings(), [])


def test_the_parts_are_as_they_are_named() -> None:
    found = settings("execution=gpu", "tracking=none", "budget=evening")
    assert isinstance(found.execution, ExecutionSettings) and found.execution.gpus_per_trial == 0.25
    assert found.tracking == TrackingSettings("none") and found.budget == BudgetSettings(minutes=180)


def test_the_default_configuration_is_the_default_settings() -> None:
    assert settings() == Settings()


# Replaying an earlier search


def again(*overrides: str) -> Settings:
    asked = ["proposer=replay", "proposer.path=results/first", *overrides]
    return replayed(settings_of(RECORDED), settings(*asked), asked)


def test_a_replay_takes_the_settings_of_its_record() -> None:
    found = again("name=second", "tracking=none", "execution.workers=1")
    expected = replace(
        settings_of(RECORDED),
        name="second",
        results_dir="results",
        notes_dir=found.notes_dir,
        proposer=ProposerSettings("replay", "results/first"),
        tracking=TrackingSettings("none"),
        execution=ExecutionSettings(workers=1),
    )
    assert found == expected


@pytest.mark.parametrize("override", ["seed=8", "search.trials=3", "model=base", "meta=uniform", "llm=vllm"])
def test_a_replay_changes_nothing_of_what_happens(override: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{override} can't be changed in a replay"):
        again(override)


def test_fields_that_only_one_provider_knows_pass_as_they_are() -> None:
    found = settings("+llm.extra_body.top_k=20", "+llm.extra_body.chat={think: false}").llm.extra_body
    assert found == {"top_k": 20, "chat": {"think": False}}
