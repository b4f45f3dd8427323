"""The report of a verification for people: Markdown, and the figure of the discovery curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.commands.measuring import markdown_table, origin_lines
from nas.terminal import printable

Report = Mapping[str, Any]


def table(report: Report) -> list[str]:
    """The verdicts, as a Markdown table."""
    headers = ["contender", "verdict", "gain (primary)", "p, corrected", *_names(report)[1:], "why"]
    return markdown_table(headers, [_verdict_cells(report, verdict) for verdict in report["verdicts"]])


def markdown(report: dict[str, Any]) -> str:
    """The whole report."""
    primary = report["conditions"][0]
    seeds = ", ".join(map(str, report["seeds"]))
    correction = report["correction"].replace("_", "-")
    corpora = "; ".join(f"{c['name']} (sha256 {c['sha256'][:16]})" for c in report["corpora"])
    lines = [
        f"# Verification of {printable(report['search'])}",
        "",
        *origin_lines(report),
        f"Each architecture, baselines included, is tuned at the search's seed over the learning rates "
        f"{', '.join(f'{rate:g}' for rate in report['grid'])}, judged on validation; the best baseline by that is "
        f"**{printable(report['opponent'])}**, and everybody is compared with it. Then everybody is trained at the "
        f"fresh seeds {seeds} and scored on {report['windows']} windows of the test split, which no search and no "
        f"training process has seen, by a process that runs no line of the candidate. Corpora: {corpora}.",
        "",
        *(f"- *{c['name']}*: {_described(c)}" for c in report["conditions"]),
        f"- *equal_flops*: as {primary['name']}, with the contender's steps scaled to the baseline's training FLOPs; "
        "left out where they differ by less than 2 %.",
        "",
        "## Verdicts",
        "",
        *table(report),
        f"Gains in bits per byte over the baseline, positive where the contender is better, with their "
        f"{1 - report['level']:.0%} interval over training seeds and text (n seeds). p: of the primary condition, "
        f"corrected for {len(report['verdicts'])} contenders ({correction}). *Better* needs a "
        f"corrected p below {report['level']:g} there, no other condition that says worse, and equal parameters within "
        "2 %.",
        "",
        "## Intervals, each way",
        "",
        *_intervals(report),
        "## Architectures, primary condition",
        "",
        *architectures(report),
        "## Ablation",
        "",
        *_ablations(report),
        "## Discovery",
        "",
        *curves(report),
        "![the best so far, and its verified gain](verification.svg)",
        "",
    ]
    return "\n".join(lines)


def _names(report: Report) -> list[str]:
    """Conditions that anybody was compared under, the primary one first."""
    return list(dict.fromkeys(each["condition"] for v in report["verdicts"] for each in v["comparisons"]))


def _described(condition: Mapping[str, Any]) -> str:
    model = condition["model"]
    return (
        f"{condition['steps']} steps on {condition['corpus']}, {model['layers']} layers of width {model['width']}, "
        f"{model['heads']} heads"
    )


def _verdict_cells(report: Report, verdict: Mapping[str, Any]) -> list[str]:
    by_name = {each["condition"]: each for each in verdict["comparisons"]}
    primary, *others = _names(report)
    return [
        printable(verdict["name"]),
        f"**{verdict['verdict']}**",
        _gain(by_name[primary]),
        f"{verdict['p']:.3g}",
        *(_gain(by_name[name]) if name in by_name else "" for name in others),
        printable(verdict["why"]),
    ]


def _gain(comparison: Mapping[str, Any]) -> str:
    return interval(comparison["gain"]) if comparison["gain"] else f"failed: {printable(comparison['failure'])}"


def interval(values: Mapping[str, Any] | None) -> str:
    """An interval in words; nothing for none."""
    if values is None:
        return ""
    return f"{values['mean']:+.4f} [{values['low']:+.4f}, {values['high']:+.4f}] (n={values['count']})"


def _intervals(report: Report) -> list[str]:
    headers = ["contender", "condition", "seeds and text", "p", "Student's t over seeds", "bootstrap", "says"]
    rows = [
        [
            printable(verdict["name"]),
            each["condition"],
            _gain(each),
            f"{each['p']:.3g}",
            interval(each["over_seeds"]),
            interval(each["bootstrap"]),
            each["says"],
        ]
        for verdict in report["verdicts"]
        for each in verdict["comparisons"]
    ]
    return markdown_table(headers, rows)


def architectures(report: Report) -> list[str]:
    """Markdown: everybody under the primary condition."""
    headers = ["", "role", "learning rate", "validation", "test", "parameters", "FLOPs/token", "state", "tokens/s"]
    rows = [
        [
            printable(row["name"]),
            row["role"],
            "" if row["learning_rate"] is None else f"{row['learning_rate']:g}",
            "" if row["validation_bits_per_byte"] is None else f"{row['validation_bits_per_byte']:.4f}",
            interval(row["bits_per_byte"]) or printable(row["failure"] or ""),
            f"{row['params']:,}",
            f"{row['flops_per_token']:,.0f}",
            "" if row["state_bytes"] is None else f"{row['state_bytes']:,}",
            f"{row['tokens_per_second']:,.0f}",
        ]
        for row in sorted(report["rows"], key=lambda row: row["validation_bits_per_byte"] or 1e9)
    ]
    return [
        *markdown_table(headers, rows),
        "Bits per byte: on validation at the selection seed and the best learning rate; on test, mean over the fresh "
        "seeds. FLOPs: forward, of the whole model. State: bytes of one mixer's decoding state at batch 1. Tokens/s: "
        "of training, with as many pieces at a time as said above.",
        "",
    ]


def _ablations(report: Report) -> list[str]:
    if not report["ablations"]:
        return [f"None of the changes that led to {printable(report['winner'])} was taken out.", ""]
    rows = [[row["trial"], *map(printable, (row["operator"], _effect(row)))] for row in report["ablations"]]
    return [
        f"Each change of the lineage of {printable(report['winner'])}, taken out of it by itself by a three-way merge, "
        "gated, tuned and trained like everybody:",
        "",
        *markdown_table(["trial", "operator", "what the winner gains by it, bits per byte"], rows),
    ]


def _effect(row: Mapping[str, Any]) -> str:
    return interval(row["effect"]) or f"it can't be removed by itself: {row['reason']}"


def curves(report: Report) -> list[str]:
    """Markdown: the record holders of each search."""
    rows = [
        [
            printable(curve["search"]),
            record["tried"],
            record["trial"],
            f"{record['bits_per_byte']:.4f}",
            interval(record["gain"]),
        ]
        for curve in report["curves"]
        for record in curve["records"]
    ]
    headers = ["search", "candidates tried", "record holder", "its score in the search", "verified gain"]
    return markdown_table(headers, rows)


def draw(report: Report, path: Path) -> Path:
    """The discovery curve as SVG: above what the search saw, below what was verified. Returns `path`."""
    from matplotlib.figure import Figure  # a second to import, and only for this

    figure = Figure(figsize=(7, 6), layout="constrained")
    seen, verified = figure.subplots(2, 1, sharex=True)
    for number, curve in enumerate(report["curves"]):
        colour, label = f"C{number}", printable(curve["search"])
        _draw_scores(seen, curve, colour, label)
        _draw_gains(verified, curve["records"], colour, number)
    seen.set_ylabel("best score so far, bits per byte")
    seen.legend()
    verified.axhline(0.0, color="grey", linewidth=1)
    verified.set_ylabel(f"verified gain over {printable(report['opponent'])},\nbits per byte")
    verified.set_xlabel("candidates tried")
    figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _draw_scores(axes: Any, curve: Mapping[str, Any], colour: str, label: str) -> None:
    records: Sequence[Mapping[str, Any]] = curve["records"]
    tried = [record["tried"] for record in records]
    bits = [record["bits_per_byte"] for record in records]
    if records:
        axes.step([*tried, curve["tried"]], [*bits, bits[-1]], where="post", color=colour, label=label)
    else:
        axes.plot([], [], color=colour, label=f"{label} (none trained)")


def _draw_gains(axes: Any, records: Sequence[Mapping[str, Any]], colour: str, number: int) -> None:
    for record in records:
        gain = record["gain"]
        if gain:
            below, above = gain["mean"] - gain["low"], gain["high"] - gain["mean"]
            place = record["tried"] + 0.15 * number  # two searches at one place would hide each other
            axes.errorbar(place, gain["mean"], [[below], [above]], fmt="o", color=colour, capsize=3)
