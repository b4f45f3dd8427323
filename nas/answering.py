"""What a trained candidate makes of given text: likelihoods and greedy continuations. Runs in the box.

By the program that `nas.rescore` traced and the parameters of a checkpoint, so that no line of the candidate runs. A
request is {"tokens": [...], "first": n} for the likelihood of the tokens from n on, given those before; or
{"tokens": [...], "until": [[...], ...], "most": n} for at most n further tokens, each the likeliest, up to one of the
sequences `until`. Text longer than the model's window is cut at its beginning.
"""

import base64
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.rescore import loaded, restored
from nas.train import use_platform

Send = Callable[[dict[str, Any]], None]
Request = dict[str, Any]


def boxed(arguments: dict[str, Any], send: Send) -> dict[str, Any]:
    """{"answers": one for each request of the file "requests"}: {"nats", "greedy"} or {"tokens"}."""
    use_platform(arguments)
    batch, time = arguments["batch"], arguments["time"]
    params = restored(Path(arguments["checkpoint"]), arguments["names"])
    dtype, vocabulary = arguments["dtype"], arguments["vocabulary"]
    program = loaded(base64.b64decode(arguments["program"]), params, batch, time, dtype, vocabulary)

    def log_probs(rows: np.ndarray) -> np.ndarray:
        """Nats of each token after each of `rows` [n, time], n up to the batch: float32 [n, time, vocabulary]."""
        padded = np.zeros((batch, time), dtype)
        padded[: len(rows)] = rows
        return np.asarray(program(params, padded))[: len(rows)]

    with os.fdopen(os.dup(arguments["files"]["requests"]), "rb") as file:
        requests: list[Request] = json.load(file)
    scored = [request for request in requests if "first" in request]
    likelihoods = iter(
        answer
        for start in range(0, len(scored), batch)
        for answer in likelihoods_of(scored[start : start + batch], log_probs, time)
    )
    return {
        "answers": [
            next(likelihoods) if "first" in request else {"tokens": continuation_of(request, log_probs, time)}
            for request in requests
        ]
    }


def likelihoods_of(
    requests: Sequence[Request], log_probs: Callable[[np.ndarray], np.ndarray], time: int
) -> list[dict[str, Any]]:
    """{"nats" of the scored tokens, "greedy": whether each is the likeliest} of up to a batch of requests."""
    rows = np.zeros((len(requests), time), np.int64)
    spans = []
    for row, request in zip(rows, requests, strict=True):
        tokens, first = request["tokens"], request["first"]
        cut = max(0, len(tokens) - (time + 1))
        inputs, targets = tokens[cut:-1], tokens[max(first, cut + 1) :]
        row[: len(inputs)] = inputs
        spans.append((len(inputs) - len(targets), targets))
    answers = []
    for scores, (start, targets) in zip(log_probs(rows), spans, strict=True):
        places = scores[start : start + len(targets)]
        nats = places[np.arange(len(targets)), targets].sum(dtype=np.float64)
        answers.append({"nats": float(nats), "greedy": bool((places.argmax(axis=-1) == targets).all())})
    return answers


def continuation_of(request: Request, log_probs: Callable[[np.ndarray], np.ndarray], time: int) -> list[int]:
    """The tokens that follow, without the one of `until` that ended them."""
    tokens, written = list(request["tokens"]), list[int]()
    ends = [list(end) for end in request["until"] if end]
    while len(written) < request["most"]:
        window = tokens[-time:]
        row = np.zeros((1, time), np.int64)
        row[0, : len(window)] = window
        likeliest = int(log_probs(row)[0, len(window) - 1].argmax())
        tokens.append(likeliest)
        written.append(likeliest)
        for end in ends:
            if written[-len(end) :] == end:
                return written[: -len(end)]
    return written
