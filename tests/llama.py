"""llama.cpp's HTTP server on this machine, with a model of random weights made on the spot.

What a proposer asks of it goes through a real inference engine: a chat template, a tokenizer, a context that can be too
short, a grammar compiled from a JSON schema, sampling, a count of tokens. What comes back makes no sense: a schema gets
JSON with senseless strings. A test module that imports `llama_server` has the fixture `llama`.
"""

import argparse
import contextlib
import re
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest

MODEL = "random-llama"
WIDTH = 32
CONTEXT = 32_768  # tokens; a kilobyte of Python takes about 500
START_SECONDS, STOP_SECONDS = 60, 20  # it needs less than a second for either
START, END = "<|start|>", "<|end|>"
TEMPLATE = (
    f"{{% for message in messages %}}{START}{{{{ message.role }}}}\n{{{{ message.content }}}}{END}{{% endfor %}}"
    f"{{% if add_generation_prompt %}}{START}assistant\n{{% endif %}}"
)


@dataclass(frozen=True)
class Llama:
    """A running server: where it answers, how it calls its model, and its process, for tests that end it early."""

    base_url: str
    model: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module", name="llama")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    """One server for the tests of a module."""
    with serving(tmp_path_factory.mktemp("llama")) as server:
        yield server


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Llama]:
    """Runs a server in a process of its own, which ends with the block, and with this process however that ends.

    Raises:
        RuntimeError: it did not start; with the end of what it wrote.
    """
    write_model(folder / "model.gguf")
    command = [sys.executable, __file__, str(folder / "model.gguf")]
    with open(folder / "server.log", "w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
            address = process.stdout.readline().strip() if ready else ""
            if not address:
                log.seek(0)
                raise RuntimeError(f"llama.cpp's server did not start:\n{log.read()[-2000:]}")
            yield Llama(f"{address}/v1", MODEL, process)
        finally:
            stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """Closes a server's standard input, at which it ends; kills it if it does not."""
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def serve(model: Path) -> None:
    """Serves a GGUF file on a free port of 127.0.0.1, which it prints once it listens, until standard input ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = str(model), {MODEL}
    params.hostnames, params.port, params.n_threads_http = ["127.0.0.1"], 0, 4
    params.n_ctx, params.n_parallel = CONTEXT, 1  # requests wait for their turn
    params.cache_ram_mib = 64  # prompts kept for the next that begins like one of them; 3 MiB each
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.ui = False, False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


# -- the model ---------------------------------------------------------------------------------------------------------


def write_model(path: Path) -> None:
    """Writes a Llama of one layer, one head and random weights as a GGUF file of 1 MB."""
    tokens, merges = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_block_count(1)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, END, START])
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL] * 2)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(len(tokens))
    writer.add_bos_token_id(len(tokens) + 1)
    writer.add_add_bos_token(False)  # the template has it
    writer.add_chat_template(TEMPLATE)
    for name, weight in weights([*tokens, END, START]).items():
        writer.add_tensor(f"{name}.weight", weight.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def weights(tokens: list[str], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights, under which some tokens are likelier than others whatever came before.

    The first channel is 1 in every embedding and no layer writes to it, so the head's first column is added to the
    logits. Through it a text, or a string in JSON, ends after dozens of tokens, and bytes that do not print have no
    chance: where JSON is no UTF-8, llama.cpp answers with status 500.
    """
    random = np.random.default_rng(seed)
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    layer = {name: random.normal(size=(WIDTH, WIDTH)) * WIDTH**-0.5 for name in matrices}
    layer["attn_output"][0] = layer["ffn_down"][0] = 0
    layer |= {"attn_norm": np.ones(WIDTH), "ffn_norm": np.ones(WIDTH)}

    embedding, head = random.normal(size=(2, len(tokens), WIDTH)) * WIDTH**-0.5
    embedding[:, 0] = 1
    head *= 0.25  # logits differ by about 1
    printing = {spelling for byte, spelling in enumerate(byte_spellings()) if 0x20 <= byte < 0x7F or byte == 0x0A}
    head[:, 0] = [0 if printing.issuperset(token) else -10 for token in tokens]
    head[[tokens.index('"'), tokens.index(END)], 0] = 1
    head[tokens.index(START), 0] = -10
    return {
        "token_embd": embedding,
        **{f"blk.0.{name}": weight for name, weight in layer.items()},
        "output_norm": np.ones(WIDTH),
        "output": head,
    }


def vocabulary(words: int = 1000) -> tuple[list[str], list[str]]:
    """The tokens of a byte-level BPE and its merges: every byte, and the beginnings of the commonest words of a module.

    The words are those of GPT-2's pre-tokenizer, as llama.cpp knows it.
    """
    spellings = byte_spellings()
    code = Path(argparse.__file__).read_text(encoding="utf-8")
    counts = Counter(re.findall(r" ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+", code))
    merges: dict[tuple[str, str], None] = {}
    for word, _ in counts.most_common(words):
        spelt = "".join(spellings[byte] for byte in word.encode())
        merges |= dict.fromkeys((spelt[:end], spelt[end]) for end in range(1, len(spelt)))
    return [*spellings, *(left + right for left, right in merges)], [f"{left} {right}" for left, right in merges]


def byte_spellings() -> list[str]:
    """How GPT-2's vocabulary spells each byte: by itself where Latin-1 shows it, else by a letter from U+0100 on."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
