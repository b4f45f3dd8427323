"""The page: one HTML file with everything in it, which opens offline and runs no script but its own.

Whatever others wrote is text: in the HTML by escaping, in the charts as data, in a trial's story as text nodes. A
policy in the page's head lets no other script run, and nothing be loaded from anywhere, should that ever fail.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from nas.errors import UserError
from nas.report import tables
from nas.report.account import Account
from nas.report.answers import answers
from nas.report.figures import FIGURES, comparison
from nas.report.figures.figure import Figure
from nas.report.stories import stories
from nas.terminal import visible

_CANVAS = 800  # trials from which on a chart is a bitmap: the browser would be slow with so many shapes


def page(accounts: Sequence[Account], made: str, recursion: tables.Table | None = None) -> str:
    """The HTML: everything about one search, or several beside each other.

    Args:
      recursion: a table of how successive searches improved on each other.
      made: how and when, for the foot of the page.

    Raises:
      UserError: if two searches have one name.
    """
    names = [account.name for account in accounts]
    if len(set(names)) < len(names):
        raise UserError(f"two searches have one name, {max(names, key=names.count)}: they can't be told apart")
    alone = accounts[0] if len(accounts) == 1 else None
    figures = [make(alone) for make in FIGURES] if alone else [comparison.figure(accounts)]
    environment = Environment(
        loader=PackageLoader("nas.report"), autoescape=True, finalize=_readable, trim_blocks=True, lstrip_blocks=True
    )
    scripts = [_library(), environment.get_template("page.js").render()]
    return environment.get_template("page.html.j2").render(
        title=", ".join(names),
        searches=[(account, answers(account)) for account in accounts],
        alone=alone,
        figures=figures,
        tables=tables,
        recursion=recursion,
        style=environment.get_template("page.css").render(),
        scripts=scripts,
        hashes=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        data=_embedded(_data(figures, accounts)),
        stories=_packed(stories(alone) if alone else {}),
        made=made,
    )


def _data(figures: Sequence[Figure], accounts: Sequence[Account]) -> dict[str, Any]:
    trials = sum(len(account.attempts) for account in accounts)
    return {
        "renderer": "canvas" if trials > _CANVAS else "svg",
        "charts": {figure.name: _spec(figure) for figure in figures if figure.chart is not None},
        "rows": {name: rows for figure in figures for name, rows in figure.data.items()},
    }


def _spec(figure: Figure) -> Mapping[str, Any]:
    spec: dict[str, Any] = figure.chart.configure(font="system-ui, sans-serif").to_dict()
    return {**spec, "usermeta": {"rows": list(figure.data)}}


def _readable(value: Any) -> Any:
    """What stands in the page: the page's own parts are marked as such, everything else may be anybody's."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert  # its stub asks for an argument that has a default

    return str(vl_convert.javascript_bundle()).replace("</script", "<\\/script")  # type: ignore[call-arg]


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _embedded(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _packed(value: Any) -> str:
    """JSON, compressed: sources repeat each other."""
    return base64.b64encode(gzip.compress(json.dumps(value, allow_nan=False).encode(), mtime=0)).decode()
