"""What a Ray job's nodes need of this project: its packages and its configuration, and nothing else of this folder.

So neither `.git`, `.venv`, results and caches nor a file with a person's secrets can be among what is sent.
"""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

from nas.errors import UserError

_CONF = "nas_conf"
_LEFT_OUT = ("__pycache__", "*.py[cod]", ".*")


def packages_of(search_space: str) -> list[str]:
    """The engine, its configuration, and the package that a search space's module is in."""
    return list(dict.fromkeys(["nas", _CONF, search_space.partition(".")[0]]))


def stage(packages: Sequence[str], folder: Path) -> list[Path]:
    """Copies packages into `folder`, as a job finds them there. Returns the files, relative to it.

    Raises:
      UserError: if one can't be imported here.
    """
    for name in packages:
        shutil.copytree(_source(name), folder / name, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _source(package: str) -> Path:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        raise UserError(f"the package {package} can't be imported: {error}") from error
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"there is no package {package} here to send")
    return Path(next(iter(spec.submodule_search_locations))).resolve()
