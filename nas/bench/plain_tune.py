"""Candidates trained with Ray Tune and a function trainable, as its documentation shows it, and nothing else.

python -m nas.bench.plain_tune JOB.json...
"""

import logging
import os
import sys

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune

from nas.bench.plain import run


def trainable(config: dict[str, str]) -> dict[str, float]:
    return {"bits_per_byte": run(config["job"])}


if __name__ == "__main__":
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"job": tune.grid_search(sys.argv[1:])},
        run_config=tune.RunConfig(verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise SystemExit(f"Ray Tune alone did not train them: {results.errors[0]}")
