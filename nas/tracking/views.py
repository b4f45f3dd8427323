"""Views of an experiment's runs that a person finds in MLflow's menu "Views": columns, filter and order are chosen.

They are tags of the experiment in MLflow's own format (3.17); a version that knows none of it shows no views.
"""

import base64
import json
import zlib
from collections.abc import Sequence

_PREFIX = "mlflow.sharedViewState."


def view_tags() -> dict[str, str]:
    """The tags of a new experiment."""
    candidates = ("operator", "family", "outcome", "certificate", "rung", "verdict")
    verified = ("operator", "verdict", "verified.gain", "verified.against", "decision")
    return {
        f"{_PREFIX}nas-candidates": _view("Candidates, best first", 'tags.purpose = "search"', candidates),
        f"{_PREFIX}nas-verified": _view("Verified as better", 'tags.verdict = "better"', verified),
    }


def _view(name: str, query: str, tags: Sequence[str]) -> str:
    best_first = "metrics.`bits_per_byte`"
    state = {
        "searchFilter": query,
        "orderByKey": best_first,
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [best_first, *(f"tags.`{one}`" for one in tags)],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})
