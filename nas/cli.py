"""The `nas` command. Hydra composes the configuration; errors of the person's making are one line and exit code 2."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nas.errors import UserError

HELP = """\
nas: searches for token mixers of linear cost, and tells what is really better.

  nas search [overrides]         search on this machine, or go on with resume=results/NAME
  nas submit cluster=ray_job|kuberay|slurm [overrides] [--dry-run]   the same search as a job of a cluster
  nas status|logs|stop KIND/NAME [--follow]   how that job stands, what it prints; ends it
  nas check FILE [--json]        run the gate on one candidate file
  nas train NAME|FILE [overrides]   train one baseline or candidate file on the same harness
  nas walk [overrides]           random candidates of the grammar through the gate: what share passes, and why not all
  nas baselines [overrides]      every baseline over several training seeds, as one table
  nas probe [NAME|FILE ...] [overrides]   recall, copying, state tracking: what architectures can do, as one table
  nas review SEARCH              what a search holds until a person has looked at it, and why
  nas approve|reject|rollback SEARCH TRIAL --by NAME --why TEXT   a person's word on what was verified
  nas report SEARCH [SEARCH ...]   one page to look at: what was found, how sure it is, why, at what cost; compared
  nas audit [verify|registry]    these words, and whether their chain is whole; MLflow's registry written from them
  nas verify SEARCH [--beside SEARCH ...] [overrides]   what it found against tuned baselines, and a verdict; ablation
  nas discovery SEARCH           what a verified search has found, in one Markdown file with sources and commands
  nas reproduce SEARCH TRIAL [overrides]   trains one of its trials again, from its journal alone, and compares
  nas export SEARCH TRIAL DIR    a trained trial as a small package that runs without this engine
  nas null [overrides]           whether verification calls copies better that differ from the baseline in names alone
  nas tabulate [overrides]       every candidate of a small closed grammar trained for seconds: results/table.csv
  nas simulate [overrides]       hundreds of searches on that table: what the meta-learner is worth, as one table
  nas meta export|compare SEARCH   what a search has learned of its operators; what other policies would have earned
  nas meta race SEARCH...          how far searches by different policies got with as many proposals, paired by seed
  nas downstream SEARCH [TRIAL] --tasks NAME,...   tasks of lm-evaluation-harness on what a search has trained
  nas notes add FILE|TEXT        a note for the LLM proposer; nas notes search WORDS, nas notes list
  nas doctor [overrides]         what contains candidates on this machine, found out by trying to get out of it
  nas ui [overrides] [--port N]  the MLflow UI on the results, at http://127.0.0.1:5000

Overrides are Hydra's: key=value, GROUP=OPTION, and -m to sweep over values with commas. `nas search --help` lists all
keys and groups with their values; `nas search --cfg job` prints the whole configuration.

  nas search                                     with the embedded defaults: no account, no download
  nas search search.trials=64 seed=3             more candidates
  nas search corpus=text path=my_notes/          on your own text
  nas search -m seed=1,2 meta=uniform,foresight       four searches
  nas submit cluster=ray_job results_dir=/shared/results search.trials=64     on a Ray cluster; cluster/README.md
  nas check my_idea.py                           is it causal, pure, and of linear cost?
  nas search proposer=folder proposer.path=DIR   candidates that you wrote
  nas search proposer=llm llm.base_url=URL llm.models=[NAME]   by an LLM behind an OpenAI-compatible endpoint
  nas search proposer=replay proposer.path=results/NAME        an earlier search once more, without the endpoint
  nas walk walk.candidates=100 seed=1            results/walk.md; given again, it goes on where it was interrupted
  nas baselines model=base baselines.seeds=5     results/baselines.md; the same
  nas probe deltanet gla probe.tasks=[parity,mqar]   results/tasks.md; the same
  nas review results/NAME accept t0012 --by NAME --why TEXT   or refuse: your word, in the search's journal
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0, 1 for a verdict of no, 2 for an error of use, 130 after an interrupt."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    commands: dict[str, Callable[[list[str]], int]] = {
        "search": _search,
        "submit": _submit,
        "status": lambda rest: _afterwards("status", rest),
        "logs": lambda rest: _afterwards("logs", rest),
        "stop": lambda rest: _afterwards("stop", rest),
        "check": _check,
        "train": _train,
        "walk": _walk,
        "baselines": _baselines,
        "probe": _probe,
        "review": _review,
        "approve": lambda rest: _approve("approve", rest),
        "reject": lambda rest: _approve("reject", rest),
        "rollback": lambda rest: _approve("rollback", rest),
        "audit": _audit,
        "report": _report,
        "verify": _verify,
        "discovery": _discovery,
        "reproduce": _reproduce,
        "export": _export,
        "null": _null,
        "tabulate": _tabulate,
        "simulate": _simulate,
        "meta": _meta,
        "downstream": _downstream,
        "notes": _notes,
        "doctor": _doctor,
        "ui": _ui,
    }
    if words[0] not in commands:
        return _fail(f"there is no command {words[0]}: there are {', '.join(commands)} (nas --help)")
    if words[0] != "search" and {"-h", "--help"} & set(words):  # a search has Hydra's own help
        print(HELP)
        return 0
    return explained(lambda: commands[words[0]](words[1:]))


def explained(command: Callable[[], int]) -> int:
    """Runs a command; turns the errors that a person can mend into one line and exit code 2."""
    try:
        return command()
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130


def _fail(sentence: str) -> int:
    print(f"nas: {sentence}", file=sys.stderr)
    return 2


def _search(words: list[str]) -> int:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    from nas.configuration import CONFIG_MODULE, CONFIG_NAME, check, settings_of

    codes = [0]

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=CONFIG_NAME)
    def task(config: DictConfig) -> None:
        from nas.commands.search import search

        codes.append(explained(lambda: search(settings_of(config), HydraConfig.get().overrides.task)))
        if codes[-1] == 130:
            raise KeyboardInterrupt  # ends a sweep too

    words = sorted(words, key=_is_override)  # Hydra's own parser takes no option between overrides
    check(words)
    sys.argv = ["nas search", *words]
    task()
    return max(codes)


def _submit(words: list[str]) -> int:
    from nas.commands.submit import submit

    return submit(words)


def _afterwards(action: str, words: list[str]) -> int:
    from nas.commands import submit

    actions: dict[str, Callable[[list[str]], int]] = {"status": submit.status, "logs": submit.logs, "stop": submit.stop}
    return actions[action](words)


def _check(words: list[str]) -> int:
    as_json = "--json" in words
    files = [word for word in words if not word.startswith("-") and "=" not in word]
    if len(files) != 1 or set(words) - {"--json", *files} - {word for word in words if "=" in word}:
        return _fail("usage: nas check FILE [--json] [overrides]")
    from nas.commands.check import check
    from nas.configuration import composed, settings_of

    return check(Path(files[0]), settings_of(composed([word for word in words if "=" in word])), as_json)


def _train(words: list[str]) -> int:
    if not words or "=" in words[0] or any(word.startswith("-") for word in words):
        return _fail("usage: nas train NAME|FILE [overrides]")
    from nas.commands.train import train
    from nas.configuration import composed, settings_of

    return train(words[0], settings_of(composed(words[1:])))


def _is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-")


def _walk(words: list[str]) -> int:
    if not all(_is_override(word) for word in words):
        return _fail("usage: nas walk [overrides]")
    from nas.commands.walk import walk
    from nas.configuration import composed, settings_of

    return walk(settings_of(composed(words)), words)


def _baselines(words: list[str]) -> int:
    if not all(_is_override(word) for word in words):
        return _fail("usage: nas baselines [overrides]")
    from nas.commands.baselines import baselines
    from nas.configuration import composed, settings_of

    return baselines(settings_of(composed(words)), words)


def _probe(words: list[str]) -> int:
    if any(word.startswith("-") for word in words):
        return _fail("usage: nas probe [NAME|FILE ...] [overrides]")
    from nas.commands.probe import probe
    from nas.configuration import composed, settings_of

    overrides = [word for word in words if _is_override(word)]
    chosen = any(word.startswith("probe=") for word in overrides)
    settings = settings_of(composed(overrides if chosen else ["probe=tiny", *overrides]))
    return probe([word for word in words if not _is_override(word)], settings, overrides)


def _review(words: list[str]) -> int:
    from nas.commands.review import arguments, review
    from nas.configuration import composed, settings_of

    search, decision, overrides = arguments(words)
    return review(search, settings_of(composed(overrides)), decision, overrides)


def _approve(action: str, words: list[str]) -> int:
    from nas.commands.approve import approve, arguments
    from nas.configuration import composed, settings_of

    search, trial, by, why, overrides = arguments(action, words)
    return approve(action, search, trial, by, why, settings_of(composed(overrides)), overrides)


def _audit(words: list[str]) -> int:
    from nas.commands.approve import audit
    from nas.configuration import composed, settings_of

    overrides = [word for word in words if _is_override(word)]
    rest = [word for word in words if word not in overrides]
    return audit(rest, settings_of(composed(overrides)), overrides)


def _report(words: list[str]) -> int:
    from nas.commands.report import arguments, report
    from nas.configuration import composed, settings_of

    searches, recursive, overrides = arguments(words)
    return report(searches, recursive, settings_of(composed(overrides)), overrides)


def _verify(words: list[str]) -> int:
    from nas.commands.verify import arguments, verify
    from nas.configuration import composed, settings_of

    search, beside, overrides = arguments(words)
    return verify(search, beside, settings_of(composed(overrides)), overrides)


def _discovery(words: list[str]) -> int:
    from nas.commands.discovery import arguments, discovery
    from nas.configuration import composed, settings_of

    search, overrides = arguments(words)
    return discovery(search, Path(settings_of(composed(overrides)).results_dir))


def _reproduce(words: list[str]) -> int:
    from nas.commands.reproduce import arguments, reproduce
    from nas.configuration import composed, settings_of

    search, trial, overrides = arguments(words)
    return reproduce(search, trial, settings_of(composed(overrides)), overrides)


def _export(words: list[str]) -> int:
    from nas.commands.export import arguments, export
    from nas.configuration import composed, settings_of

    search, trial, target, overrides = arguments(words)
    return export(search, trial, target, settings_of(composed(overrides)))


def _null(words: list[str]) -> int:
    if not all(_is_override(word) for word in words):
        return _fail("usage: nas null [overrides]")
    from nas.commands.null import null
    from nas.configuration import composed, settings_of

    return null(settings_of(composed(words)), words)


def _tabulate(words: list[str]) -> int:
    if not all(_is_override(word) for word in words):
        return _fail("usage: nas tabulate [overrides]")
    from nas.commands.tabulate import tabulate
    from nas.configuration import composed, settings_of

    overrides = words if any(word.startswith("experiment=") for word in words) else ["experiment=table", *words]
    return tabulate(settings_of(composed(overrides)), words)


def _simulate(words: list[str]) -> int:
    if not all(_is_override(word) for word in words):
        return _fail("usage: nas simulate [overrides]")
    from nas.commands.simulate import simulate

    chosen = any(word.startswith("search.trials=") for word in words)
    return simulate(words if chosen else ["search.trials=200", *words], words)


def _meta(words: list[str]) -> int:
    from nas.commands.meta import arguments, compare, export
    from nas.commands.race import race
    from nas.configuration import composed, settings_of

    action, searches, file, overrides = arguments(words)
    settings = settings_of(composed(overrides))
    if action == "race":
        return race(searches, settings)
    return export(searches[0], file, settings) if action == "export" else compare(searches[0], settings)


def _downstream(words: list[str]) -> int:
    from nas.commands.downstream import arguments, downstream
    from nas.configuration import composed, settings_of

    wanted, overrides = arguments(words)
    return downstream(wanted, settings_of(composed(overrides)))


def _notes(words: list[str]) -> int:
    from nas.commands.notes import notes
    from nas.configuration import composed, settings_of

    overrides = [word for word in words[1:] if word.startswith(("notes_dir=", "results_dir=", "search_space"))]
    return notes([word for word in words if word not in overrides], settings_of(composed(overrides)))


def _doctor(words: list[str]) -> int:
    if not all(_is_override(word) for word in words):
        return _fail("usage: nas doctor [overrides]")
    from nas.commands.doctor import doctor
    from nas.configuration import composed, settings_of

    return doctor(settings_of(composed(words)))


def _ui(words: list[str]) -> int:
    port = 5000
    if "--port" in words:
        position = words.index("--port")
        if position + 1 == len(words) or not words[position + 1].isdigit():
            return _fail("usage: nas ui [overrides] [--port N]")
        port = int(words[position + 1])
        words = words[:position] + words[position + 2 :]
    if any(word.startswith("-") for word in words):
        return _fail("usage: nas ui [overrides] [--port N]")
    from nas.commands.shown import store_of
    from nas.configuration import composed, settings_of
    from nas.ui import serve

    return serve(*store_of(settings_of(composed(words))), port=port)


if __name__ == "__main__":
    sys.exit(main())
