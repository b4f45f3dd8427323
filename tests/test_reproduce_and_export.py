"""`nas reproduce` and `nas export` on one real search: the same numbers again, and a package that needs no engine."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import ROOT, SPACE
from flax import nnx

from nas import journal as journals
from nas.cli import main
from nas.commands.environment import differences, environment_of
from nas.commands.export import arguments as export_arguments
from nas.commands.reproduce import Compared, Terms, arguments
from nas.configuration import settings_of
from nas.errors import UserError
from nas.journal import Event
from nas.loading import load_mixer
from nas.model import LanguageModel
from nas.rescore import parameters
from nas.settings import ModelSettings
from nas.standalone import sources
from nas.standalone.checking import unpack_boxed
from nas.standalone.decoding import Decoder
from nas.standalone.loading import name_of, read
from nas.tasks.feed import held_out_windows
from nas.train import save

TINY = [
    *("search_space.baselines=[linear_attention]", "search.trials=2", "search.noise_seeds=0", "search.confirm_seeds=0"),
    *("model.width=16", "model.layers=2", "train.steps=12", "train.batch=2", "train.time=32", "train.grid=[0.5,1.0]"),
    *("train.steps_per_dispatch=3", "task.validation_windows=4", "scheduler.reduction_factor=2", "execution.workers=1"),
    *("budget.memory_gib=2", "tripwire.least_leap=9", "tracking=none", "name=first"),
]
LINEAR = SPACE.baselines()["linear_attention"]
BETTER = SPACE.compose({**SPACE.describe(LINEAR.source), "readout": "sigmoid gate"})
WORSE = """
import jax.numpy as jnp
from flax import nnx

class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.mix = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        return 30.0 * jnp.tanh(jnp.cumsum(self.mix(x), axis=1))
"""
HOSTILE = "<script>alert(1)</script> | [here](http://evil) ![x](//e) `code` **loud** \x1b[2J\n# head\n<img src=x>"
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("nas", "search_spaces", "jaxtyping"):
            raise ImportError(f"{name} is not to be had")

sys.meta_path.insert(0, Blocked())
"""
LOGITS = """
import runpy
import numpy as np
from flax import nnx
from language_model import Decoder, load

model, windows = load(), np.load(sys.argv[1])
called = np.asarray(nnx.jit(lambda model, tokens: model(tokens))(model, windows))
decoder = Decoder(model, len(windows))
stepped = np.stack([np.asarray(decoder(column)) for column in windows.T], axis=1)
np.savez(sys.argv[2], called=called, stepped=stepped)
sys.argv = ["generate.py", "line 3 of", "--tokens", "8"]
runpy.run_path("generate.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], text: list[str]) -> Path:
    """The folder of one whole search."""
    results, ideas = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("ideas")
    (ideas / "better.py").write_text(BETTER.source)
    (ideas / "worse.py").write_text(WORSE)
    proposed = ["proposer=folder", f"proposer.path={ideas}", f"results_dir={results}"]
    words = [sys.executable, "-m", "nas", "search", *TINY, *text, *proposed]
    run = subprocess.run(words, capture_output=True, text=True, timeout=500, env=environment, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    return results / "first"


@pytest.fixture(scope="module")
def trials(finished: Path) -> dict[str, Event]:
    return {event["id"]: event for event in journals.read(finished / "journal.jsonl") if event["event"] == "trial"}


@pytest.fixture(scope="module")
def best(finished: Path) -> str:
    """The candidate that was rescored."""
    return str(journals.read(finished / "journal.jsonl")[-1]["best"])


@pytest.fixture(scope="module")
def stopped(trials: dict[str, Event]) -> str:
    """A trial that the scheduler stopped."""
    return next(name for name, event in trials.items() if event["stopped"])


def copied(finished: Path, to: Path, change: Callable[[list[Event]], object], whole: bool = False) -> Path:
    """A copy of the search with another journal, without its trials' folders unless `whole`."""
    folder = to / "copy"
    if whole:
        shutil.copytree(finished, folder)
    folder.mkdir(exist_ok=True)
    events = journals.read(finished / "journal.jsonl")
    change(events)
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def run(words: Iterable[object], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main([*map(str, words)])
    shown = capfd.readouterr()
    return code, shown.out, shown.err


# Reproduction


def test_a_trained_trial_comes_to_the_same_numbers(
    finished: Path, best: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(["reproduce", finished, best], capfd)
    assert code == 0, out + err
    assert "every number has to be the same" in out and "the gate passes it" in out
    assert out.count("as in the journal") == 5, "three rungs, the end, and held-out text"
    assert f"Reproduced: {best} of first: every number is the same." in out


def test_a_stopped_trial_is_trained_up_to_where_it_was_stopped(
    finished: Path, trials: dict[str, Event], stopped: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(["reproduce", "first", stopped, f"results_dir={finished.parent}"], capfd)
    assert code == 0, out + err
    assert f"up to step {trials[stopped]['outcome']['step']} of 12" in out and "step     12" not in out
    assert "every number is the same" in out


def test_a_number_that_was_changed_is_found(
    finished: Path, stopped: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def change(events: list[Event]) -> None:
        (event,) = [e for e in events if e["event"] == "trial" and e["id"] == stopped]
        event["rungs"][0]["bits_per_byte"] -= 0.001

    code, out, err = run(["reproduce", copied(finished, tmp_path, change), stopped], capfd)
    assert code == 1, out + err
    assert "the journal contradicts itself" in out and f"Not reproduced: {stopped} of copy" in out


def test_elsewhere_bits_per_byte_agree_within_the_noise_over_seeds() -> None:
    here = Compared(Terms([], {12: 0.02}, 0.01))
    assert "as in the journal" in here.bits("end", 12, [2.5, 2.5], 2.5) and here.same and not here.failures
    here.bits("end", 12, [2.5], 2.5001)
    assert here.failures, "on the same machine every digit counts"
    elsewhere = Compared(Terms(["jax 2, was 1"], {12: 0.02}, 0.01))
    assert "within 0.02" in elsewhere.bits("end", 12, [2.5], 2.519) and not elsewhere.failures and not elsewhere.same
    assert [*elsewhere.others("its", ["params"], {"params": 1}, {"params": 2})] and not elsewhere.failures
    assert "beyond 0.02" in elsewhere.bits("end", 12, [2.5], 2.521) and elsewhere.failures
    unknown = Compared(Terms(["jax 2, was 1"], {}, 0.01))
    unknown.bits("end", 12, [2.5], 2.511)
    assert "tripwire.rescore=0.01" in unknown.terms.in_words() and unknown.failures


def test_what_is_not_as_it_was_is_said(finished: Path) -> None:
    begun = journals.read(finished / "journal.jsonl")[0]
    here = environment_of(settings_of(begun["config"]))
    assert [*differences(begun, here)] == []
    other = {**begun, "versions": {**begun["versions"], "jax": "0.1"}, "sources": "0"}
    other["machine"] = {**begun["machine"], "accelerators": ["\x1b[2JA very large one"]}
    said = " / ".join(differences(other, here))
    assert "jax" in said and "was 0.1" in said and "was [2JA very large one" in said and "sources" in said
    assert "does not say its processor" in " / ".join(differences({}, here))


def _event(events: list[Event], kind: str, name: str) -> Event:
    return next(e for e in events if e["event"] == kind and name in (e.get("id"), e.get("trial")))


def _without(events: list[Event], kind: str, name: str) -> None:
    events.remove(_event(events, kind, name))


def _cut(events: list[Event], name: str) -> None:
    del events[events.index(_event(events, "trial", name)) :]


def _edited(events: list[Event], name: str, kinds: Iterable[str], change: Callable[[Any], object]) -> None:
    for kind in kinds:
        change(_event(events, kind, name))


BOTH = ("ask", "trial")
DAMAGES: dict[str, tuple[Callable[[list[Event], str], object], str]] = {
    "cut": (_cut, "has not ended in"),
    "without its question": (lambda events, name: _without(events, "ask", name), "no lines hand it out"),
    "without a rung": (lambda events, name: _without(events, "rung", name), "it was measured at steps"),
    "of another source": (
        lambda events, name: _edited(events, name, BOTH, lambda e: e["candidate"].update(source="x = 1")),
        "its source is not that of candidate",
    ),
    "with a source in one place": (
        lambda events, name: _edited(events, name, ["ask"], lambda e: e["candidate"].update(source="#", id="0")),
        "its source is not that of candidate 0",
    ),
    "without a seed": (
        lambda events, name: _edited(events, name, BOTH, lambda e: e["budget"].pop("seed")),
        "its seed is missing",
    ),
    "without a budget": (lambda events, name: _edited(events, name, BOTH, lambda e: e.pop("budget")), "is damaged"),
    "of another seed": (
        lambda events, name: _edited(events, name, ["ask"], lambda e: e["budget"].update(seed=3)),
        "handed out with another budget",
    ),
    "with a word for a number": (
        lambda events, name: _edited(events, name, ["trial"], lambda e: e["outcome"].update(bits_per_byte="low")),
        "is damaged",
    ),
    "without a setting": (lambda events, name: events[0]["config"]["train"].pop("batch"), "does not say train.batch"),
    "without its settings": (lambda events, name: events[0].pop("config"), "does not say search_space.module and 3"),
    "without its corpus": (lambda events, name: events[0]["corpus"].pop("sha256"), "does not say the sha256"),
    "rejected": (
        lambda events, name: _edited(
            events, name, ["trial"], lambda e: e.update(outcome={"kind": "rejected", "check": "cost", "reason": ""})
        ),
        "has no score: it was rejected by cost",
    ),
    "held": (
        lambda events, name: _edited(
            events,
            name,
            ["trial"],
            lambda e: e.update(outcome={"kind": "held", "tripwire": "leap", "reason": "", "fitness": e["outcome"]}),
        ),
        "is held (leap): nas review",
    ),
    "with its corpus gone": (
        lambda events, name: events[0]["config"]["corpus"].update(path="/nowhere/at/all"),
        "/nowhere/at/all",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_one_sentence(
    finished: Path, best: str, damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, said = DAMAGES[damage]
    folder = copied(finished, tmp_path, lambda events: change(events, best))
    code, out, err = run(["reproduce", folder, best], capfd)
    assert (code, out) == (2, "") and err.startswith("nas: ") and err.count("\n") == 1 and said in err, err
    if "corpus" not in damage:
        code, out, err = run(["export", folder, best, tmp_path / "out"], capfd)
        assert (code, out) == (2, "") and said in err and not (tmp_path / "out").exists()


def test_another_text_is_not_trained_on(
    finished: Path, best: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.txt").write_text("another text, and the same line all along\n" * 6000)
    code, out, err = run(["reproduce", finished, best, f"corpus.path={tmp_path / 'other.txt'}"], capfd)
    assert (code, out) == (2, "") and "the corpus is no longer that of first" in err


def test_what_is_asked_wrongly_is_said(finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damaged = copied(finished, tmp_path, lambda events: None) / "journal.jsonl"
    damaged.write_bytes(damaged.read_bytes().replace(b'"event": "ask"', b'"event"; "ask"', 1))
    assert "is damaged at line 2" in run(["reproduce", damaged.parent, "t0001"], capfd)[2]
    assert "t0099 is no trained trial of" in run(["reproduce", finished, "t0099"], capfd)[2]
    assert "can't be changed in a reproduction" in run(["reproduce", finished, "t0000", "train.steps=3"], capfd)[2]
    assert "there is no search in nowhere" in run(["export", "nowhere", "t0000", tmp_path / "out"], capfd)[2]
    for words in ([], ["one"], ["one", "t0000", "more"], ["one", "--fast"]):
        with pytest.raises(UserError, match="usage"):
            arguments(words)
    for words in (["one", "t0000"], ["one", "t0000", "out", "more"], ["one", "t0000", "--out"]):
        with pytest.raises(UserError, match="usage"):
            export_arguments(words)


# Export


@pytest.fixture(scope="module")
def exported(finished: Path, best: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the best candidate, which says hostile things of itself, and was verified."""
    gain = {"mean": 0.05, "low": 0.01, "high": 0.09, "count": 3}

    def change(events: list[Event]) -> None:
        hostile = dict.fromkeys(("name", "motivation", "proposer", "operator"), HOSTILE)
        _edited(events, best, BOTH, lambda e: e["candidate"].update(hostile, parents=[LINEAR.id]))
        events.append(
            {"event": "verified", "trial": best, "verdict": "better", "p": 0.01, "gain": gain, "against": "gla"}
        )

    folder = tmp_path_factory.mktemp("exported")
    search = copied(finished, folder, change, whole=True)
    assert main(["export", str(search), best, str(folder / "out")]) == 0
    return folder / "out"


def elsewhere(code: str, *words: object, folder: Path) -> str:
    """What a process prints that can import neither engine nor search space."""
    script = [sys.executable, "-c", BLOCKED + code, *map(str, words)]
    found = subprocess.run(script, capture_output=True, text=True, timeout=300, cwd=folder)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_package_computes_elsewhere_what_the_engine_does(
    finished: Path, trials: dict[str, Event], best: str, exported: Path, tmp_path: Path
) -> None:
    begun, outcome = journals.read(finished / "journal.jsonl")[0], trials[best]["outcome"]
    text = np.fromfile(Path(begun["corpus"]["folder"]) / "validation.bin", np.uint8)
    windows = held_out_windows(text, 4, 32).astype(np.int32)
    np.save(tmp_path / "windows.npy", windows[:, :-1])
    written = elsewhere(LOGITS, tmp_path / "windows.npy", tmp_path / "logits.npz", folder=exported)
    assert written.startswith("line 3 of") and len(written) > len("line 3 of\n")
    logits = np.load(tmp_path / "logits.npz")
    np.testing.assert_allclose(logits["stepped"], logits["called"], atol=2e-4)

    (checkpoint,) = [path for path in (finished / "trials" / best / "train/checkpoints").iterdir() if path.is_dir()]
    mixer, settings = load_mixer(trials[best]["candidate"]["source"]), ModelSettings(**begun["config"]["model"])
    model = nnx.jit(lambda: LanguageModel(mixer, settings, rngs=nnx.Rngs(0)))()
    stored, state = parameters(checkpoint), nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree_util.tree_map_with_path(lambda path, leaf: stored[_bare(path)], state))
    engine = nnx.jit(lambda model, tokens: model(tokens))(model, windows[:, :-1])
    np.testing.assert_allclose(logits["called"], engine, atol=1e-5)

    log_probs = np.asarray(jax.nn.log_softmax(logits["called"]), np.float64)
    chosen = np.take_along_axis(log_probs, windows[:, 1:, None], axis=-1)
    assert -chosen.mean() / np.log(2) == pytest.approx(outcome["bits_per_byte"], abs=1e-5)


def _bare(path: Any) -> str:
    return name_of(path).removesuffix("/value")


def test_a_package_has_what_it_needs_and_says_what_it_is(exported: Path, best: str) -> None:
    requirements = [line.partition("==")[0] for line in (exported / "requirements.txt").read_text().splitlines()]
    assert {"jax", "flax"} <= {*requirements} <= {"jax", "flax", "numpy", "einops"}
    files = sorted(str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file())
    assert {"README.md", "config.json", "generate.py", "weights.npz", "language_model/mixer.py"} <= {*files}
    assert not any("nas." in line or "search_spaces" in line for line in _imports(exported))
    card = (exported / "README.md").read_text()
    for said in (
        "| causality |",
        "| better | gla | +0.0500 &#91;+0.0100, +0.0900&#93; (n=3) | 0.01 |",
        "training seed 0",
    ):
        assert said in card
    assert f"| {best} | &#60;script" in card and f"| linear&#95;attention | {BETTER.id} |" in card, "its lineage"
    assert "alert(1)" in card and "\x1b" not in card and "\n# head" not in card
    assert not any(markup in card for markup in ("<script", "<img", "](http", "![x", "`code`", "**loud"))


def _imports(folder: Path) -> list[str]:
    lines = [line for file in folder.rglob("*.py") for line in file.read_text().splitlines()]
    return [line for line in lines if line.lstrip().startswith(("from ", "import "))]


def test_nothing_is_overwritten_and_no_weights_are_made_up(
    finished: Path, best: str, exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "nothing is overwritten" in run(["export", finished, best, exported], capfd)[2]
    code, out, err = run(["export", copied(finished, tmp_path, lambda events: None), best, tmp_path / "out"], capfd)
    assert (code, out) == (2, "") and f"{best} has no checkpoint of step 12" in err
    folder = copied(finished, tmp_path, lambda events: None, whole=False)
    shutil.copytree(finished / "trials" / best, folder / "trials" / best)
    for file in (folder / "trials" / best / "train/checkpoints").rglob("*"):
        if file.is_file() and file.parent.name == "d":  # where the arrays are
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    code, _, err = run(["export", folder, best, tmp_path / "out"], capfd)
    assert code == 2 and err.startswith("nas: the checkpoint ") and "can't be read" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_every_mixer_of_the_space_is_a_package_by_itself(tmp_path: Path) -> None:
    mixers = {**SPACE.baselines(), **SPACE.outside_references()}
    for name, candidate in mixers.items():
        for path, written in sources.package_of(
            candidate.source, "search_spaces.linear_attention", trained_tokens=False
        ).items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(written)
    assert not (tmp_path / "gla/ops/delta.py").exists(), "no op goes along that is not needed"
    assert "def recurrent_linear_attention" not in (tmp_path / "gla/ops/linear.py").read_text(), (
        "and no other form of it"
    )
    code = """
import importlib
import jax
from flax import nnx

for name in sys.argv[1:]:
    package, settings = importlib.import_module(name), importlib.import_module(f"{name}.settings")
    decoding = importlib.import_module(f"{name}.decoding")

    def both(tokens):
        model = package.LanguageModel(package.TokenMixer, settings.ModelSettings(16, 2, 2), rngs=nnx.Rngs(0))
        if not decoding.has_step(model):
            return model(tokens), None
        return model(tokens), decoding.step(model, tokens[:, 0], decoding.init_state(model, 1))[0]

    called, stepped = jax.eval_shape(both, jax.ShapeDtypeStruct((1, 40), "int32"))
    print(name, called.shape, stepped and stepped.shape)
"""
    said = elsewhere(code, *mixers, folder=tmp_path).splitlines()
    assert len(said) == len(mixers) == 15
    assert all(line.endswith("(1, 40, 256) (1, 256)") or line.startswith("softmax_attention") for line in said), said


VARIED = """
import jax
import jax.numpy as jnp
from flax import nnx

class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.mix = nnx.Linear(width, width, param_dtype=jnp.bfloat16, rngs=rngs)
        self.fixed = nnx.Variable(jax.random.normal(rngs.params(), (width,)))

    def __call__(self, x):
        return (self.mix(x) * self.fixed[...]).astype(x.dtype)
"""


def test_weights_of_any_type_and_what_is_drawn_survive(tmp_path: Path) -> None:
    settings = ModelSettings(8, 2, 2)
    mixer = load_mixer(VARIED)
    model = nnx.jit(lambda: LanguageModel(mixer, settings, rngs=nnx.Rngs(jax.random.key(5))))()
    assert save(tmp_path / "checkpoints", 1, {"params": nnx.state(model, nnx.Param)}, [], 0.0) is None
    asked = {"checkpoint": str(tmp_path / "checkpoints/00000001"), "weights": str(tmp_path / "weights.npz")}
    dtypes = unpack_boxed(asked, lambda message: None)["dtypes"]
    assert dtypes["layers/mixer/mix/kernel"] == "bfloat16" and dtypes["embedding/embedding"] == "float32"
    config = {"model": asdict(settings), "vocabulary": 256, "seed": 5, "dtypes": dtypes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = read(tmp_path, load_mixer(VARIED))
    assert again.layers.mixer.mix.kernel[...].dtype == jnp.bfloat16
    np.testing.assert_allclose(again.layers.mixer.fixed[...], model.layers.mixer.fixed[...], rtol=1e-6)
    tokens = jnp.arange(3)[None]
    np.testing.assert_allclose(again(tokens), model(tokens), rtol=1e-5, atol=1e-5)
    decoder = Decoder(again)  # without a step: by the whole text so far
    for token in range(3):
        logits = decoder([token])
    np.testing.assert_allclose(logits[0], model(tokens)[0, -1], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="of another mixer"):
        read(tmp_path, load_mixer(SPACE.baselines()["gla"].source))


@pytest.mark.parametrize(
    ("source", "written", "module"),
    [
        (
            "import search_spaces.linear_attention.ops as o\ny = o.rotary",
            "from . import ops as o\ny = o.rotary",
            "rotary",
        ),
        (
            "import math, search_spaces.linear_attention.ops\nops = search_spaces.linear_attention.ops.rms_norm(1)",
            "import math; from . import ops as ops_\nops = ops_.rms_norm(1)",
            "layers",
        ),
        (
            "def f():\n    from search_spaces.linear_attention.ops import rotary as r, dpfp  # é\n    return r, dpfp",
            "def f():\n    from .ops import rotary as r, dpfp  # é\n    return r, dpfp",
            "features",
        ),
        (
            "from search_spaces.linear_attention import ops\né = 'ü'; y = ops.chunks.decay_factor",
            "from . import ops\né = 'ü'; y = ops.chunks.decay_factor",
            "chunks",
        ),
    ],
)
def test_every_form_of_import_leads_into_the_package(source: str, written: str, module: str) -> None:
    files = sources.package_of(source, "search_spaces.linear_attention", trained_tokens=False)
    assert files["mixer.py"].rstrip("\n") == written
    assert f"ops/{module}.py" in files and f".{module} " in files["ops/__init__.py"].replace(
        "import chunks", ".chunks "
    )


def test_what_is_not_there_can_not_be_packed() -> None:
    for name in (
        "from search_spaces.linear_attention import ops\nops.nothing",
        "from search_spaces.linear_attention.ops import nothing",
    ):
        with pytest.raises(UserError, match="ops has no `nothing`"):
            sources.package_of(name, "search_spaces.linear_attention", trained_tokens=False)
