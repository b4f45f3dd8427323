"""lm-evaluation-harness on a trained candidate: its likelihoods and continuations are those of the model itself."""

import json
from dataclasses import asdict

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from common import SPACE, ungated_spec
from flax import nnx
from test_trial import SETTINGS

from nas import harness
from nas.answering import continuation_of, likelihoods_of
from nas.commands import downstream
from nas.errors import UserError
from nas.journal import Journal
from nas.loading import load_mixer
from nas.model import LanguageModel
from nas.trial import run_trial
from nas.types import Budget, Candidate, Cost, Fitness, Trial, trial_to_json

CHOICE = """
task: nas_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}]
"""
TEXT = """
task: nas_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
WRITE = """
task: nas_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{written}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 6}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def searched(box, corpus, tmp_path_factory):
    """The folder of a search with one trained baseline in it."""
    folder = tmp_path_factory.mktemp("results") / "one"
    source = SPACE.baselines()["linear_attention"].source
    spec = ungated_spec(source, SETTINGS, corpus, folder / "trials" / "t0000")
    *_, last = run_trial(spec, box)
    outcome = {name: value for name, value in last["outcome"].items() if name != "kind"}
    candidate = Candidate(source, "baseline", name="linear_attention")
    trial = Trial("t0000", candidate, "baseline", Budget(12), Fitness(**outcome), Cost())
    journal = Journal(folder / "journal.jsonl")
    journal.append({"event": "search", "name": "one", "config": asdict(SETTINGS), "corpus": asdict(corpus)})
    journal.append({"event": "trial", **trial_to_json(trial)})
    journal.append({"event": "end", "reason": "trials", "best": "t0000", "summary": ""})
    journal.close()
    return folder


@pytest.fixture(scope="module")
def log_probs(searched):
    """The model itself, from its checkpoint: tokens [n, time] -> nats [n, time, vocabulary]."""
    (checkpoint,) = [path for path in (searched / "trials/t0000/train/checkpoints").iterdir() if path.is_dir()]
    model = LanguageModel(load_mixer(SPACE.baselines()["linear_attention"].source), SETTINGS.model, rngs=nnx.Rngs(0))
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.restore(checkpoint.absolute())["params"]
    state = nnx.state(model, nnx.Param)
    nnx.replace_by_pure_dict(state, _values(stored))
    nnx.update(model, state)
    return lambda rows: np.asarray(nnx.log_softmax(model(jnp.asarray(rows, jnp.int32)), axis=-1))


def _values(tree):
    if not isinstance(tree, dict):
        return tree
    return tree["value"] if tree.keys() == {"value"} else {key: _values(value) for key, value in tree.items()}


def test_the_harness_sees_the_model_itself(searched, log_probs, tmp_path):
    time = SETTINGS.train.time
    docs = [
        {"text": f"line {number} of", "choices": [" file", " fool", "?"], "label": 0, "written": ""}
        for number in range(7)
    ]
    long = "".join(f"line {line} of file 3: the state keeps what the keys wrote\n" for line in range(4))
    file = tmp_path / "docs.json"
    file.write_text("\n".join(json.dumps(document) for document in docs))
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps({"text": long}))
    for name, task, data in (("choice", CHOICE, file), ("text", TEXT, texts), ("write", WRITE, file)):
        (tmp_path / f"{name}.yaml").write_text(task.format(file=data))
    tasks = ("nas_choice", "nas_text", "nas_write")
    wanted = downstream.Wanted(str(searched), None, tasks, tmp_path, None)
    assert downstream.downstream(wanted, SETTINGS) == 0
    found = json.loads((searched / "downstream-t0000.json").read_text())["tasks"]

    def nats(text, first):
        tokens = list(text.encode())
        scores = log_probs(np.array([tokens[:-1]]))[0]
        return sum(scores[place - 1, tokens[place]] for place in range(first, len(tokens)))

    chosen = [
        int(np.argmax([nats(d["text"] + choice, len(d["text"])) for choice in d["choices"]])) == d["label"]
        for d in docs
    ]
    assert found["nas_choice"]["acc"] == pytest.approx(np.mean(chosen))
    tokens, total = list(long.encode()), 0.0
    for start in range(0, len(tokens), time):  # each window is preceded by one byte
        window = [*([10] if start == 0 else [tokens[start - 1]]), *tokens[start : start + time]]
        if len(window) < time + 1 and start:  # the last one has a full context
            window = tokens[len(tokens) - time - 1 :]
        scores = log_probs(np.array([window[:-1]]))[0]
        new = len(tokens[start : start + time])
        total += sum(scores[place, window[place + 1]] for place in range(len(window) - 1 - new, len(window) - 1))
    assert found["nas_text"]["bits_per_byte"] == pytest.approx(-total / np.log(2) / len(tokens), rel=1e-4)
    assert 0 <= found["nas_write"]["exact_match"] <= 1


def test_likelihoods_are_of_the_scored_tokens_alone(log_probs):
    time = SETTINGS.train.time
    requests = [{"tokens": list(range(60, 60 + size)), "first": first} for size, first in ((5, 1), (9, 8), (12, 4))]
    for request, answer in zip(requests, likelihoods_of(requests, log_probs, time), strict=True):
        tokens, scores = request["tokens"], log_probs(np.array([request["tokens"][:-1]]))[0]
        places = range(request["first"], len(tokens))
        assert answer["nats"] == pytest.approx(sum(scores[place - 1, tokens[place]] for place in places), rel=1e-4)
        assert answer["greedy"] == all(scores[place - 1].argmax() == tokens[place] for place in places)
    (alone,) = likelihoods_of(requests[:1], log_probs, time)
    assert alone["nats"] == pytest.approx(likelihoods_of(requests, log_probs, time)[0]["nats"], rel=1e-4)


def test_text_longer_than_the_window_is_cut_at_its_beginning(log_probs):
    time = SETTINGS.train.time
    tokens = [number % 100 for number in range(3 * time)]
    (long,) = likelihoods_of([{"tokens": tokens, "first": len(tokens) - 2}], log_probs, time)
    (short,) = likelihoods_of([{"tokens": tokens[-time - 1 :], "first": time - 1}], log_probs, time)
    assert long == short


def test_a_continuation_is_greedy_and_ends_where_it_should(log_probs):
    time = SETTINGS.train.time
    start = list(b"line 3 of")
    tokens = continuation_of({"tokens": start, "until": [], "most": 8}, log_probs, time)
    assert len(tokens) == 8
    for place, token in enumerate(tokens):
        assert log_probs(np.array([[*start, *tokens[:place]]]))[0, -1].argmax() == token
    end = tokens[3:5]
    first = next(at for at in range(len(tokens)) if tokens[at : at + 2] == end)
    ended = continuation_of({"tokens": start, "until": [[], end], "most": 8}, log_probs, time)
    assert ended == tokens[:first]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one"], "usage"),
        (["one", "--tasks", ""], "usage"),
        (["one", "--tasks", "x", "--limit", "few"], "usage"),
        (["one", "--tasks", "x", "--include", "/nowhere/at/all"], "no such folder"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_a_sentence(words, said):
    with pytest.raises(UserError, match=said):
        downstream.arguments(words)


def test_a_task_or_trial_that_is_not_there_is_said_in_a_sentence(searched):
    with pytest.raises(harness.HarnessError, match="knows no task nas_nowhere"):
        harness.evaluate(harness.Answerer(lambda asked: [], list, str, 8), ["nas_nowhere"])
    with pytest.raises(UserError, match="t9999 is no trained trial"):
        downstream.downstream(downstream.Wanted(str(searched), "t9999", ("x",), None, None), SETTINGS)
