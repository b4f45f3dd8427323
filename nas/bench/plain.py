"""One candidate trained as a script would: a cold process, no gate, no box, nothing kept.

python -m nas.bench.plain JOB.json
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nas.settings import ModelSettings, TrainSettings
from nas.tasks.reader import read_tokens
from nas.train import train


def run(path: str) -> float:
    """Trains what the file says, and returns its bits per byte at the last rung.

    The file has the arguments of `nas.train.train`: "source", "model", "train", "data" (split -> file), "dtype",
    "token_bytes" (file), "validation_windows", "rungs".
    """
    job = json.loads(Path(path).read_text())
    rungs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        ended = train(
            source=job["source"],
            model_settings=ModelSettings(**job["model"]),
            settings=TrainSettings(**job["train"]),
            data={split: read_tokens(file, job["dtype"]) for split, file in job["data"].items()},
            validation_windows=job["validation_windows"],
            rungs=job["rungs"],
            floor=None,
            checkpoints=Path(folder),
            send=lambda message: rungs.append(message["rung"]),
            token_bytes=np.array(read_tokens(job["token_bytes"], "uint16")),
        )
    if ended != {"trained": True}:
        raise SystemExit(f"a candidate that the engine trained did not train: {ended}")
    return float(rungs[-1]["bits_per_byte"])


if __name__ == "__main__":
    print(run(sys.argv[1]))
