"""llama.cpp's own server against the plain OpenAI client: what a real endpoint answers, in sense and in refusal."""

import json
from pathlib import Path

import openai
import pytest
from common import ROOT
from llama import CONTEXT, Llama, llama_server, serving  # noqa: F401 (the fixture)
from openai.types.chat import ChatCompletion

PROPOSAL = {
    "type": "object",
    "properties": {"motivation": {"type": "string"}, "source": {"type": "string"}, "gain": {"type": "number"}},
    "required": ["motivation", "source", "gain"],
    "additionalProperties": False,
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "proposal", "strict": True, "schema": PROPOSAL}}


def client_of(llama: Llama) -> openai.OpenAI:
    """The plain client, which tries once."""
    return openai.OpenAI(base_url=llama.base_url, api_key="none", max_retries=0, timeout=120)


def ask(llama: Llama, prompt: str, model: str | None = None, **options: object) -> ChatCompletion:
    """One completion."""
    with client_of(llama) as client:
        messages = [{"role": "system", "content": "You propose token mixers."}, {"role": "user", "content": prompt}]
        return client.chat.completions.create(model=model or llama.model, messages=messages, **options)


def code(size: int) -> str:
    """So many characters of the engine's own source: what prompts are made of."""
    text = "".join(path.read_text() for path in sorted(ROOT.glob("nas/**/*.py")))
    assert len(text) > size
    return text[:size]


def test_answers_with_its_count_of_tokens(llama: Llama) -> None:
    answer = ask(llama, "hello", max_tokens=20, temperature=0.8, seed=1)
    assert answer.model == llama.model
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 20
    assert answer.usage.prompt_tokens > 5  # the template and both messages
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_seed_fixes_the_answer(llama: Llama) -> None:
    def text(seed: int) -> str | None:
        # What is left of a prompt beyond its cached beginning is another batch, whose sums may round otherwise.
        answer = ask(llama, "hello", max_tokens=50, temperature=0.8, seed=seed, extra_body={"cache_prompt": False})
        return answer.choices[0].message.content

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(5)}) > 1


def test_a_prompt_of_25_kilobytes_fits(llama: Llama) -> None:
    answer = ask(llama, code(25_000), max_tokens=200)
    assert 5_000 < answer.usage.prompt_tokens < 25_000  # fewer tokens than bytes: words are merged
    assert answer.usage.completion_tokens <= 200


def test_a_prompt_beyond_the_context_is_refused(llama: Llama) -> None:
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size") as refused:
        ask(llama, "a b c d " * CONTEXT, max_tokens=20)  # no token spells more than one of its words
    assert refused.value.status_code == 400
    assert refused.value.body["n_ctx"] == CONTEXT


def test_a_schema_makes_json_of_its_shape(llama: Llama) -> None:
    answer = ask(llama, "hello", max_tokens=4000, temperature=0.8, seed=1, response_format=SCHEMA)
    assert answer.choices[0].finish_reason == "stop"
    proposal = json.loads(answer.choices[0].message.content)
    assert set(proposal) == set(PROPOSAL["properties"])
    assert isinstance(proposal["source"], str)


def test_json_is_cut_where_the_tokens_end(llama: Llama) -> None:
    answer = ask(llama, "hello", max_tokens=5, temperature=0.8, seed=1, response_format=SCHEMA)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.choices[0].message.content)


def test_whatever_model_is_asked_for_answers_under_its_own_name(llama: Llama) -> None:
    """A server of one model refuses no name; so the answer's name is the one to believe."""
    assert ask(llama, "hello", model="another", max_tokens=5).model == llama.model


def test_lists_its_model(llama: Llama) -> None:
    with client_of(llama) as client:
        assert [model.id for model in client.models.list()] == [llama.model]


def test_a_server_that_is_killed_breaks_the_connection_and_no_more(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.process.kill()
        server.process.wait()
        with pytest.raises(openai.APIConnectionError):
            ask(server, "hello", max_tokens=5)
