"""Every setting of the engine as a frozen, typed dataclass. Standard library only.

Hydra's YAML files in `conf/` give the values; `nas.configuration` checks them against these types. The parts of the
engine take these objects and know nothing of Hydra. A value out of range raises `ValueError` with one sentence.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TPU_CHIPS = (0, 1, 2, 4, 8)  # that Ray gives of a host
_SET_BY_US = frozenset(("messages", "model", "max_tokens", "max_completion_tokens", "n", "response_format", "stream"))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False, sort_keys=True, ensure_ascii=False).encode()
    except (TypeError, ValueError):  # a lone surrogate too
        return False
    return True


def is_url(place: str) -> bool:
    """Whether it is in a store, and no path."""
    return "://" in place


def has_credentials(url: str) -> bool:
    """Whether a store's URL has more in it than the place."""
    _, found, rest = url.partition("://")
    return bool(found) and ("@" in rest.partition("/")[0] or "?" in rest or "#" in rest)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


@dataclass(frozen=True)
class SearchSpaceSettings:
    """`module` provides `SPACE` (see `nas.space`); `baselines` names those to train first, its starters if empty.

    Attributes:
      approved: whether what a person has approved (`nas approve`) is among the baselines.
    """

    module: str = "search_spaces.linear_attention.space"
    baselines: tuple[str, ...] = ()
    approved: bool = True


@dataclass(frozen=True)
class ProposerSettings:
    """Who writes candidates.

    Attributes:
      kind: "grammar" | "random" | "folder" | "llm" | "replay".
      path: for "folder": each `*.py` file in it is proposed once, in the order of the names; for "replay": the folder
        of the search whose proposals are made again.
    """

    kind: str = "grammar"
    path: str | None = None

    def __post_init__(self) -> None:
        kinds = ("grammar", "random", "folder", "llm", "replay")
        _require(self.kind in kinds, f"proposer.kind={self.kind}: there are {', '.join(kinds)}")
        wants_path = self.kind in ("folder", "replay")
        _require(not wants_path or bool(self.path), f"proposer={self.kind} needs proposer.path=DIR")
        _require(wants_path or not self.path, f"proposer.path={self.path} needs proposer=folder or proposer=replay")


@dataclass(frozen=True)
class ModelPrice:
    """What a model costs, in dollars per million tokens that it reads (`input`) and writes (`output`)."""

    model: str
    input: float
    output: float

    def __post_init__(self) -> None:
        prices = (self.input, self.output)
        _require(min(prices) >= 0, f"llm.prices: the price of {self.model} must not be negative")
        _require(max(prices) < math.inf, f"llm.prices: the price of {self.model} must be finite")


@dataclass(frozen=True)
class LlmSettings:
    """The team behind an OpenAI-compatible endpoint; unused unless `proposer=llm`.

    Attributes:
      base_url: of the endpoint, e.g. "http://127.0.0.1:8000/v1"; null is OpenAI's own.
      models: names that the endpoint knows. Several share the work by gain per dollar.
      key_env: the environment variable that holds the key: it is read from nowhere else.
      prices: of the models; those not named cost nothing, and then `max_dollars` is refused.
      temperature, top_p, max_tokens: of one answer.
      structured: how an answer's shape is asked for: "json_schema" | "json_object" | "none" (in words alone).
      extra_body: further fields of each request, for what only one provider knows.
      timeout_seconds: of one call, from its first byte to its last.
      retries: further attempts after a call that failed for a reason that may pass.
      backoff_seconds: wait before the first of them; it doubles, with jitter.
      concurrency: calls at a time.
      calls_per_minute: null for no limit of our own.
      max_dollars, max_tokens_total, max_calls: caps on the whole search, `null` for none. At one the grammar goes on.
      ahead: at most so many proposals in the making or ready.
      patience_seconds: how long an idle worker waits for the LLM before it is given a proposal of the grammar.
      attempts: answers asked for in one proposal, until one can be used.
      repairs: times that one idea is repaired after the gate's or a crash's message.
      rewrite: share of whole rewrites among the proposals from one parent; the others are edits.
      inspirations, notes, lessons: how many of each a prompt shows.
      similar: token similarity from which a proposal is a near-copy of a candidate that is not its parent; names and
        constants do not count, so 1 is the same but for these.
      analyst: whether a model writes what was learned from each trial; else rules do.
      judge: whether a model gives an opinion on novelty and simplicity, without seeing any score.
      evolve_prompts: whether a model writes variants of the researcher's prompt, which compete by gain.
      prompts: a folder whose files stand in for those of `nas/llm/prompts`.
      trial_dollars: what the device time of one trial counts as, when models are compared by gain per dollar.
    """

    base_url: str | None = None
    models: tuple[str, ...] = ()
    key_env: str = "OPENAI_API_KEY"
    prices: tuple[ModelPrice, ...] = ()
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 8192
    structured: str = "json_schema"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: float = 180.0
    retries: int = 4
    backoff_seconds: float = 1.0
    concurrency: int = 4
    calls_per_minute: float | None = None
    max_dollars: float | None = None
    max_tokens_total: int | None = None
    max_calls: int | None = None
    ahead: int = 8
    patience_seconds: float = 60.0
    attempts: int = 3
    repairs: int = 2
    rewrite: float = 0.3
    inspirations: int = 3
    notes: int = 4
    lessons: int = 6
    similar: float = 1.0
    analyst: bool = True
    judge: bool = False
    evolve_prompts: bool = False
    prompts: str | None = None
    trial_dollars: float = 0.01

    def __post_init__(self) -> None:
        for name in ("max_tokens", "concurrency", "ahead", "attempts"):
            _require(getattr(self, name) >= 1, f"llm.{name}={getattr(self, name)} must be at least 1")
        for name in ("retries", "repairs", "inspirations", "notes", "lessons", "temperature", "backoff_seconds"):
            _require(getattr(self, name) >= 0, f"llm.{name}={getattr(self, name)} must not be negative")
        for name in ("timeout_seconds", "calls_per_minute", "patience_seconds", "trial_dollars"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"llm.{name}={value} must be positive")
        for name in ("max_dollars", "max_tokens_total", "max_calls"):
            value = getattr(self, name)
            _require(value is None or value >= 0, f"llm.{name}={value} must not be negative")
        _require(
            self.key_env.isidentifier(),
            "llm.key_env is the name of an environment variable, not the key itself: set it, and name it here",
        )
        _require(self.timeout_seconds <= 86_400, f"llm.timeout_seconds={self.timeout_seconds} is longer than a day")
        _require(
            not self.extra_body.keys() & _SET_BY_US and _is_json(self.extra_body),
            f"llm.extra_body takes JSON values, and none of {', '.join(sorted(_SET_BY_US))}, which are set elsewhere",
        )
        shapes = ("json_schema", "json_object", "none")
        _require(self.structured in shapes, f"llm.structured={self.structured}: there are {', '.join(shapes)}")
        _require(0 < self.top_p <= 1, f"llm.top_p={self.top_p} must be in (0, 1]")
        _require(0 <= self.rewrite <= 1, f"llm.rewrite={self.rewrite} must be in [0, 1]")
        _require(0 < self.similar <= 1, f"llm.similar={self.similar} must be in (0, 1]")
        unpriced = sorted(set(self.models) - {price.model for price in self.prices})
        _require(
            self.max_dollars is None or not unpriced,
            f"llm.max_dollars needs the price of {', '.join(unpriced)} in llm.prices",
        )


@dataclass(frozen=True)
class ModelSettings:
    """The backbone around every mixer.

    Attributes:
      width, heads, layers: as usual; the mixer is given width and heads.
      layer_params: parameters of one layer in units of width^2: the MLP takes up what the mixer leaves of them. A
        Transformer's layer has 4 in its attention and 8 in its MLP.
    """

    width: int = 64
    heads: int = 2
    layers: int = 2
    layer_params: float = 12.0

    def __post_init__(self) -> None:
        _require(min(self.width, self.heads, self.layers) >= 1, "model.width, heads and layers must be at least 1")
        _require(self.width % self.heads == 0, f"model.width={self.width} is no multiple of model.heads={self.heads}")
        _require(
            self.layer_params > 1, f"model.layer_params={self.layer_params} must exceed 1, for the MLP to have some"
        )

    def params(self, vocabulary: int) -> int:
        """Of a whole model, but for norms and the rounding of the MLP's hidden width (see `nas.model`)."""
        return round(self.layers * self.layer_params * self.width**2) + vocabulary * self.width


@dataclass(frozen=True)
class CorpusSettings:
    """The text, and what its tokens are.

    Attributes:
      kind: "stdlib" (the running Python's own sources) | "docstrings" (what NumPy and SciPy say of themselves: English
        prose) | "text" (a UTF-8 file or folder) | "token_bin" (tokens of nanoGPT or llm.c: a .bin file or a folder of
        them) | "huggingface" (a data set that `datasets` can load).
      path: for all but the first two.
      tokenizer: "bytes" | "bpe" (trained on the training split) | the path of a `tokenizer.json`, which for "token_bin"
        says what text each token stands for.
      vocabulary: tokens of "bpe", the 256 bytes among them.
      dataset, config: for "huggingface" in the place of `path`: a name on the Hub, and which of its configurations.
      split, column: which of the data set's splits, and which column of it holds the text.
      megabytes: so many of the data set's text are taken, from its beginning.
    """

    kind: str = "stdlib"
    path: str | None = None
    tokenizer: str = "bytes"
    vocabulary: int = 2048
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    column: str = "text"
    megabytes: float = 100.0

    def __post_init__(self) -> None:
        kinds = ("stdlib", "docstrings", "text", "token_bin", "huggingface")
        _require(self.kind in kinds, f"corpus.kind={self.kind}: there are {', '.join(kinds)}")
        _require(
            self.kind not in ("text", "token_bin") or bool(self.path), f"corpus={self.kind} needs path=FILE_OR_FOLDER"
        )
        _require(
            self.kind != "huggingface" or bool(self.path) != bool(self.dataset),
            "corpus=huggingface needs corpus.dataset=NAME, or path=FILE_OR_FOLDER for a local one",
        )
        _require(bool(self.tokenizer), "corpus.tokenizer is bytes, bpe or a tokenizer.json")
        _require(
            self.kind != "token_bin" or self.tokenizer != "bpe",
            "corpus=token_bin has tokens already: set corpus.tokenizer to the tokenizer.json of its tokens",
        )
        _require(257 <= self.vocabulary <= 2**24, f"corpus.vocabulary={self.vocabulary} must be in [257, 2^24]")
        _require(self.megabytes > 0, f"corpus.megabytes={self.megabytes} must be positive")


@dataclass(frozen=True)
class TaskSettings:
    """Language modelling: `validation_windows` windows of the training length measure each rung."""

    kind: str = "language_modelling"
    validation_windows: int = 128

    def __post_init__(self) -> None:
        _require(self.kind == "language_modelling", f"task.kind={self.kind}: there is language_modelling")
        _require(self.validation_windows >= 2, "task.validation_windows must be at least 2, for a standard error")


@dataclass(frozen=True)
class TrainSettings:
    """One trial's training, the same for every candidate and baseline.

    Attributes:
      steps: optimizer steps of the full budget; the learning rate decays over these.
      batch, time: windows per step and tokens per window.
      accumulate: equal parts of a batch that are computed one after the other, so that a large one fits in the memory.
      learning_rate: peak; linear warm-up over `warmup` of the steps, cosine decay to a tenth.
      grid: multiples of it that every architecture is trained with up to the first rung; the best of them goes on.
      clip: largest norm of a gradient.
      steps_per_dispatch: at most so many steps in one call of the compiled program.
      seed: fixes initial parameters and data order, the same for every candidate. Fresh seeds are counted up from it.
      timeout_seconds: wall-clock after which a trial is ended as Crashed("timeout").
    """

    steps: int = 256
    batch: int = 4
    accumulate: int = 1
    time: int = 256
    learning_rate: float = 8e-3
    grid: tuple[float, ...] = (0.5, 1.0, 2.0)
    warmup: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    steps_per_dispatch: int = 32
    seed: int = 0
    timeout_seconds: float = 900.0

    def __post_init__(self) -> None:
        _require(min(self.steps, self.batch, self.time, self.steps_per_dispatch) >= 1, "train.* sizes must be >= 1")
        _require(
            self.accumulate >= 1 and self.batch % self.accumulate == 0,
            f"train.batch={self.batch} is no multiple of train.accumulate={self.accumulate}",
        )
        _require(self.time >= 8, f"train.time={self.time} must be at least 8, to look for leaks in")
        _require(self.learning_rate > 0, f"train.learning_rate={self.learning_rate} must be positive")
        _require(len(self.grid) >= 1, "train.grid must have at least one multiple of train.learning_rate")
        _require(min(self.grid) > 0, f"train.grid={list(self.grid)} must be positive")
        _require(0 <= self.warmup < 1, f"train.warmup={self.warmup} must be in [0, 1)")
        _require(self.weight_decay >= 0, f"train.weight_decay={self.weight_decay} must not be negative")
        _require(self.clip > 0, f"train.clip={self.clip} must be positive")
        _require(0 <= self.seed < 2**31, f"train.seed={self.seed} must be in [0, 2^31)")
        _require(self.timeout_seconds > 0, f"train.timeout_seconds={self.timeout_seconds} must be positive")

    @property
    def microbatch(self) -> int:
        """Windows that are computed at a time."""
        return self.batch // self.accumulate


@dataclass(frozen=True)
class ProbeSettings:
    """Probe tasks, for `nas probe` and for the trials of a search (see `nas.tasks.probes`).

    Attributes:
      size: "none" | "tiny" | "published": of the tasks and of the models on them.
      tasks: by name; all there are if empty.
      seeds: training seeds of each, counted up from `train.seed`.
      learning_rates: the grid of peaks, the same for every architecture; each task's own if empty.
      steps: optimizer steps of a run; null for each task's own.
      timeout_seconds: wall-clock of one run; those of one task and architecture have their sum together.
      first: in a search, before the training: the cheapest rung; else after it, for who was trained to the end.
      least: share of right answers that a candidate then needs on each task to be trained at all.
    """

    size: str = "none"
    tasks: tuple[str, ...] = ()
    seeds: int = 3
    learning_rates: tuple[float, ...] = ()
    steps: int | None = None
    timeout_seconds: float = 300.0
    first: bool = False
    least: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.least <= 1, f"probe.least={self.least} must be in [0, 1]")
        _require(self.first or not self.least, f"probe.least={self.least} needs probe.first=true")
        sizes = ("none", "tiny", "published")
        _require(self.size in sizes, f"probe.size={self.size}: there are {', '.join(sizes)}")
        _require(self.seeds >= 1, f"probe.seeds={self.seeds} must be at least 1")
        rates = self.learning_rates
        _require(all(0 < rate < math.inf for rate in rates), f"probe.learning_rates={list(rates)} must be positive")
        _require(len(set(rates)) == len(rates), f"probe.learning_rates={list(rates)} must be different")
        _require(self.steps is None or self.steps >= 1, f"probe.steps={self.steps} must be at least 1")
        _require(self.timeout_seconds > 0, f"probe.timeout_seconds={self.timeout_seconds} must be positive")


@dataclass(frozen=True)
class FitnessSettings:
    """What ranks candidates that reached the same rung; which of them go on is the scheduler's, by bits per byte.

    Attributes:
      kind: "bits_per_byte" | "weighted" (bits per byte gained over the reference baseline, and the weights below).
      tokens_per_second, peak_bytes, state_bytes, flops_per_token: bits per byte that twice the speed, half the memory,
        half the state, half the FLOPs of the reference baseline are worth; for "weighted".
      probes: probe task -> bits per byte that its score is worth; for "weighted".
      judge: weight of the LLM judge's opinion (`llm.judge`), who sees no score; at most 0.2, and 0 is off.
    """

    kind: str = "bits_per_byte"
    tokens_per_second: float = 0.0
    peak_bytes: float = 0.0
    state_bytes: float = 0.0
    flops_per_token: float = 0.0
    probes: Mapping[str, float] = field(default_factory=dict)
    judge: float = 0.0

    def __post_init__(self) -> None:
        kinds = ("bits_per_byte", "weighted")
        _require(self.kind in kinds, f"fitness.kind={self.kind}: there are {' and '.join(kinds)}")
        weights = {
            name: getattr(self, name) for name in ("tokens_per_second", "peak_bytes", "state_bytes", "flops_per_token")
        }
        weights |= {f"probes.{name}": weight for name, weight in self.probes.items()}
        for name, weight in weights.items():
            _require(0 <= weight <= 1, f"fitness.{name}={weight} must be in [0, 1] bits per byte")
        used = [name for name, weight in weights.items() if weight]
        _require(self.kind == "weighted" or not used, f"fitness.{''.join(used[:1])} needs fitness=weighted")
        _require(
            0 <= self.judge <= 0.2, f"fitness.judge={self.judge} must be in [0, 0.2]: an opinion is no measurement"
        )


@dataclass(frozen=True)
class SchedulerSettings:
    """Successive halving over the rungs of a trial.

    Attributes:
      kind: "asha" | "none" (every trial has the full budget).
      first_rung: fraction of the steps at the first rung.
      reduction_factor: one in so many goes on from a rung, and the next rung is so many times further.
    """

    kind: str = "asha"
    first_rung: float = 0.25
    reduction_factor: float = 4.0

    def __post_init__(self) -> None:
        _require(self.kind in ("asha", "none"), f"scheduler.kind={self.kind}: there are asha and none")
        _require(0 < self.first_rung <= 1, f"scheduler.first_rung={self.first_rung} must be in (0, 1]")
        _require(self.reduction_factor > 1, f"scheduler.reduction_factor={self.reduction_factor} must exceed 1")


@dataclass(frozen=True)
class MetaSettings:
    """How operators are chosen (see `nas.meta`).

    Attributes:
      kind: "foresight" (by what children may be worth; discounted UCB where that is not known) | "ducb" (discounted
        UCB) | "swucb" (sliding-window UCB) | "thompson" (discounted) | "pursuit" (adaptive pursuit) | "uniform" |
        "fixed".
      discount: gamma, by which what was earned is worth less after each trial.
      exploration, floor: c of the UCBs; epsilon, the probability of any operator whatever it has earned.
      window: completions over which the largest gain scales the reward.
      horizon: trials that the sliding window sees.
      pursuit: step of the adaptive pursuit.
      weights: operator -> weight, of `fixed`; 1 for those not named.
      contexts: whether credit is learned by what the parent is like, too.
      pooling: trials that the mean of all contexts counts for in each.
      cost: whether a gain counts by the training FLOPs that were spent on it.
      prior: a file of `nas meta export` or the folder of an earlier search, to start from what that has learned.
      prior_weight: what a trial of the earlier search counts for.
    """

    kind: str = "foresight"
    discount: float = 0.995
    exploration: float = 0.1
    floor: float = 0.05
    window: int = 50
    horizon: int = 200
    pursuit: float = 0.1
    weights: Mapping[str, float] = field(default_factory=dict)
    contexts: bool = True
    pooling: float = 4.0
    cost: bool = False
    prior: str | None = None
    prior_weight: float = 0.3

    def __post_init__(self) -> None:
        kinds = ("foresight", "ducb", "swucb", "thompson", "pursuit", "uniform", "fixed")
        _require(self.kind in kinds, f"meta.kind={self.kind}: there are {', '.join(kinds)}")
        _require(0 < self.discount <= 1, f"meta.discount={self.discount} must be in (0, 1]")
        _require(self.exploration >= 0, f"meta.exploration={self.exploration} must not be negative")
        _require(0 <= self.floor <= 1, f"meta.floor={self.floor} must be in [0, 1]")
        _require(self.window >= 1, f"meta.window={self.window} must be at least 1")
        _require(self.horizon >= 1, f"meta.horizon={self.horizon} must be at least 1")
        _require(0 < self.pursuit <= 1, f"meta.pursuit={self.pursuit} must be in (0, 1]")
        weights = self.weights.values()
        _require(all(0 <= weight < math.inf for weight in weights), "meta.weights must be finite and not negative")
        _require(0 < self.pooling < math.inf, f"meta.pooling={self.pooling} must be positive")
        _require(0 <= self.prior_weight <= 1, f"meta.prior_weight={self.prior_weight} must be in [0, 1]")


@dataclass(frozen=True)
class BudgetSettings:
    """Caps; `null` for none, of those on the whole search. At a cap the search ends in good order and says which one.

    Attributes:
      trials: trials of any purpose, baselines and confirmations among them; those that run are finished.
      minutes: wall-clock of one run of the search; a resumed one has them anew.
      device_hours: summed wall-clock of the trainings of all finished trials.
      params: parameters of one mixer, in units of width^2.
      flops_per_token: forward FLOPs of one mixer per token, as a multiple of the reference baseline's.
      memory_gib: resident memory of one contained process.
      gate_seconds: wall-clock of the gate for one candidate.
    """

    trials: int | None = None
    minutes: float | None = None
    device_hours: float | None = None
    params: float = 10.0
    flops_per_token: float = 4.0
    memory_gib: float = 4.0
    gate_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("trials", "minutes", "device_hours", "params", "flops_per_token", "memory_gib", "gate_seconds"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"budget.{name}={value} must be positive")


@dataclass(frozen=True)
class SandboxSettings:
    """What contains candidate code (`nas doctor` says what this machine gives).

    Attributes:
      tier: "auto" (the best of the next two that works here) | "bubblewrap" (namespaces, Landlock and seccomp) |
        "landlock" (Landlock and seccomp) | "limits" (process limits alone: a hostile candidate gets out).
    """

    tier: str = "auto"

    def __post_init__(self) -> None:
        tiers = ("auto", "bubblewrap", "landlock", "limits")
        _require(self.tier in tiers, f"sandbox.tier={self.tier}: there are {', '.join(tiers)}")


@dataclass(frozen=True)
class TripwireSettings:
    """What is too good to be celebrated: such a candidate is held until a person has looked at it.

    Attributes:
      leap: an improvement over the best baseline by more than so many times the spread of the baselines,
      least_leap: and by more than so many bits per byte: two alike baselines have no spread.
      entropy: a loss under this fraction of what a compressor (LZMA) needs for the same text, in bits per byte.
      rescore: bits per byte by which the rescored value may differ from the trained one.
      gap: bits per byte by which it may do worse on held-out text than on the validation windows, beyond what the
        baselines do: its training has those windows at hand.
      collapse: the share of the last `collapse_window` trained candidates in one family, or of the last
        `collapse_window` proposals by one operator, from which a search has collapsed onto it.
    """

    leap: float = 1.0
    least_leap: float = 0.3
    entropy: float = 0.35
    rescore: float = 0.01
    gap: float = 0.2
    collapse: float = 0.9
    collapse_window: int = 40

    def __post_init__(self) -> None:
        _require(min(self.leap, self.least_leap, self.entropy) >= 0, "tripwire.* must not be negative")
        _require(self.rescore > 0, f"tripwire.rescore={self.rescore} must be positive")
        _require(self.gap > 0, f"tripwire.gap={self.gap} must be positive")
        _require(0.5 < self.collapse <= 1, f"tripwire.collapse={self.collapse} must be in (0.5, 1]")
        _require(self.collapse_window >= 8, f"tripwire.collapse_window={self.collapse_window} must be at least 8")


@dataclass(frozen=True)
class ExecutionSettings:
    """Where trials run.

    Attributes:
      address: Ray cluster to join; null starts Ray on this machine.
      workers: trials at a time; null for what the cluster's resources allow.
      cpus_per_trial, gpus_per_trial, tpus_per_trial: what one trial reserves, on one machine. Over whole accelerators a
        training shares out its batches (see `nas.devices`); a fraction of a GPU is for several small trials on one,
        each with its share of the memory. TPUs are counted in chips, of one host.
      device_gib: training tokens up to this size are kept on an accelerator, larger ones sent to it batch by batch.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_trial: float = 1
    gpus_per_trial: float = 0
    tpus_per_trial: float = 0
    device_gib: float = 1.0

    def __post_init__(self) -> None:
        _require(self.workers is None or self.workers >= 1, f"execution.workers={self.workers} must be at least 1")
        _require(self.cpus_per_trial > 0, "execution.cpus_per_trial must be positive")
        gpus, tpus = self.gpus_per_trial, self.tpus_per_trial
        _require(
            0 <= gpus <= 1 or (gpus > 1 and gpus % 1 == 0),
            f"execution.gpus_per_trial={gpus:g} must be a fraction of one GPU or a whole number of them",
        )
        _require(
            tpus in _TPU_CHIPS,
            f"execution.tpus_per_trial={tpus:g} must be 0, 1, 2, 4 or 8: chips of one host, since a trial does not "
            "run on several",
        )
        _require(not (gpus and tpus), "a trial runs on GPUs or on TPUs: set one of execution.*_per_trial to 0")
        _require(self.device_gib >= 0, f"execution.device_gib={self.device_gib} must not be negative")

    @property
    def accelerated(self) -> bool:
        """Whether a trial has GPUs or TPUs."""
        return self.gpus_per_trial > 0 or self.tpus_per_trial > 0

    @property
    def devices(self) -> int | None:
        """Over how many a training is spread; None for all that its process sees: a TPU chip is one or two."""
        return None if self.tpus_per_trial else max(1, int(self.gpus_per_trial))


@dataclass(frozen=True)
class ClusterSettings:
    """Where `nas submit` sends a search (see `nas.cluster`). A search itself reads none of these.

    Attributes:
      kind: "none" | "ray_job" | "kuberay" | "slurm".
      python: the interpreter there, with the project's requirements; null: slurm: the one that submits, else "python".
      address: ray_job: URL of the dashboard; null for RAY_API_SERVER_ADDRESS, else loopback.
      workers: kuberay: at most so many worker nodes; slurm: nodes.
      least_workers: kuberay: worker nodes that are kept while nothing is asked of them.
      cpus, gpus, memory_gib: kuberay, slurm: of one worker node.
      image: kuberay: container image with the project in it.
      namespace, context: kuberay: as kubectl has them; null for its own.
      claim: kuberay: PersistentVolumeClaim, mounted at results_dir on every node.
      secret: kuberay: Secret whose keys are the driver's environment; null for none.
      store_secret: kuberay: Secret with the store's credentials, for all nodes; null where they have a role.
      spot: kuberay: "none" | "gke" | "eks" | "aks": workers on nodes that may be taken away, as this cloud marks them.
      partition, account: slurm: null for the cluster's own.
      minutes: slurm: at most.
    """

    kind: str = "none"
    python: str | None = None
    address: str | None = None
    workers: int = 4
    least_workers: int = 0
    cpus: int = 8
    gpus: int = 0
    memory_gib: int = 32
    image: str | None = None
    namespace: str | None = None
    context: str | None = None
    claim: str | None = None
    secret: str | None = None
    store_secret: str | None = None
    spot: str = "none"
    partition: str | None = None
    account: str | None = None
    minutes: int = 720

    def __post_init__(self) -> None:
        kinds = ("none", "ray_job", "kuberay", "slurm")
        _require(self.kind in kinds, f"cluster.kind={self.kind}: there are {', '.join(kinds)}")
        for name in ("workers", "cpus", "memory_gib", "minutes"):
            _require(getattr(self, name) >= 1, f"cluster.{name}={getattr(self, name)} must be at least 1")
        _require(self.gpus >= 0, f"cluster.gpus={self.gpus} must not be negative")
        within = 0 <= self.least_workers <= self.workers
        _require(within, f"cluster.least_workers={self.least_workers} must be from 0 to cluster.workers")
        clouds = ("none", "gke", "eks", "aks")
        _require(self.spot in clouds, f"cluster.spot={self.spot}: there are {', '.join(clouds)}")
        for name in ("namespace", "context", "claim", "secret", "store_secret", "partition", "account", "image"):
            value = getattr(self, name)
            plain = value is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@,+-]*", value)
            _require(bool(plain), f"cluster.{name}={value} must be a name: letters, digits and . _ : / @ , + -")
        _require(
            self.address is None or self.address.startswith(("http://", "https://")),
            f"cluster.address={self.address} must be the URL of the dashboard, http://HOST:8265",
        )


@dataclass(frozen=True)
class TrackingSettings:
    """Where results are shown: "mlflow" or "none". `uri` null is SQLite in the results folder."""

    kind: str = "mlflow"
    uri: str | None = None
    experiment: str = "nas"

    def __post_init__(self) -> None:
        _require(self.kind in ("mlflow", "none"), f"tracking.kind={self.kind}: there are mlflow and none")


@dataclass(frozen=True)
class SearchSettings:
    """The loop itself.

    Attributes:
      trials: candidates to propose, beside the baselines.
      elites: parents are chosen among so many best of an island, and the best of each behaviour.
      islands: populations that search apart, in turns (see `nas.population`).
      migrate_every: children that land, between two migrations,
      migrants: in which so many best of each island come to the next one too.
      explore: probability that a parent is any of these, whatever its rank.
      draws: children that are drawn for each proposal of the grammar; the one that looks best is trained (see
        `nas.predictor`). 1 for any.
      confirm_seeds: fresh training seeds for the best candidate and the best baseline at the end.
      noise_seeds: extra seeds of some baselines, which measure the noise; none are needed where an earlier search of
        the same configuration on such a machine has measured it.
      noise_baselines: how many are repeated, the reference first.
      fidelity_bound: a rung whose rank correlation with the last one is under it, interval and all, is weighted down,
      fidelity_trials: over so many trials that reached both.
      shared: a folder, or the URL of one in a store; searches of the same configuration that share it take in what the
        others have trained, as parents (see `nas.guests`). null for none.
    """

    trials: int = 20
    elites: int = 8
    islands: int = 1
    migrate_every: int = 20
    migrants: int = 2
    explore: float = 0.1
    draws: int = 8
    confirm_seeds: int = 2
    noise_seeds: int = 1
    noise_baselines: int = 4
    fidelity_bound: float = 0.3
    fidelity_trials: int = 8
    shared: str | None = None

    def __post_init__(self) -> None:
        _require(self.trials >= 0, f"search.trials={self.trials} must not be negative")
        _require(self.elites >= 1, f"search.elites={self.elites} must be at least 1")
        _require(self.islands >= 1, f"search.islands={self.islands} must be at least 1")
        _require(self.migrate_every >= 1, f"search.migrate_every={self.migrate_every} must be at least 1")
        _require(self.migrants >= 0, f"search.migrants={self.migrants} must not be negative")
        _require(self.draws >= 1, f"search.draws={self.draws} must be at least 1")
        _require(0 <= self.explore <= 1, f"search.explore={self.explore} must be in [0, 1]")
        _require(min(self.confirm_seeds, self.noise_seeds) >= 0, "search.*_seeds must not be negative")
        _require(self.noise_baselines >= 1, f"search.noise_baselines={self.noise_baselines} must be at least 1")
        _require(0 <= self.fidelity_bound <= 1, f"search.fidelity_bound={self.fidelity_bound} must be in [0, 1]")
        _require(self.fidelity_trials >= 4, f"search.fidelity_trials={self.fidelity_trials} must be at least 4")


@dataclass(frozen=True)
class WalkSettings:
    """`nas walk`: so many random candidates of the grammar go through the gate."""

    candidates: int = 1000

    def __post_init__(self) -> None:
        _require(self.candidates >= 1, f"walk.candidates={self.candidates} must be at least 1")


@dataclass(frozen=True)
class BaselinesSettings:
    """`nas baselines`: each is trained with so many seeds, counted up from `train.seed`."""

    seeds: int = 3

    def __post_init__(self) -> None:
        _require(self.seeds >= 1, f"baselines.seeds={self.seeds} must be at least 1")


@dataclass(frozen=True)
class VerifySettings:
    """`nas verify`: the contenders of a search against its baselines, everybody tuned and on the same fresh seeds.

    Attributes:
      contenders: so many of the search's best candidates; the verdicts are corrected for their number.
      baselines: so many of its best baselines, beside the space's reference.
      seeds: fresh training seeds of each condition; the search's own chose the candidates and enters none.
      longer: the primary condition has so many times the search's steps.
      widen: the second width is so many times the search's, with as many times the heads; 1 leaves it out.
      corpus, path: kind and path of the second corpus; "none" leaves it out.
      equal_flops: whether steps are also scaled to the baseline's training FLOPs, where these differ by 2 % or more.
      grid: learning rates that everybody is tuned over, as multiples of `train.learning_rate`.
      windows: of the training length, spread over the test split.
      level: of significance, after the correction.
      correction: for the number of contenders: "holm" | "benjamini_hochberg".
      ablations: at most so many changes of the winner's lineage are taken out, the latest first.
      records: the last so many record holders of each search are verified for the discovery curve.
      copy_to: a folder that gets copies of the report; null for none.
    """

    contenders: int = 3
    baselines: int = 1
    seeds: int = 5
    longer: float = 2.0
    widen: int = 2
    corpus: str = "docstrings"
    path: str | None = None
    equal_flops: bool = True
    grid: tuple[float, ...] = (0.5, 1.0, 2.0)
    windows: int = 256
    level: float = 0.05
    correction: str = "holm"
    ablations: int = 8
    records: int = 3
    copy_to: str | None = None

    def __post_init__(self) -> None:
        for name in ("contenders", "baselines", "widen"):
            _require(getattr(self, name) >= 1, f"verify.{name}={getattr(self, name)} must be at least 1")
        for name in ("seeds", "windows"):
            _require(getattr(self, name) >= 2, f"verify.{name}={getattr(self, name)} must be at least 2")
        for name in ("ablations", "records"):
            _require(getattr(self, name) >= 0, f"verify.{name}={getattr(self, name)} must not be negative")
        _require(self.longer > 0, f"verify.longer={self.longer} must be positive")
        _require(bool(self.grid) and min(self.grid) > 0, "verify.grid needs at least one multiple, all positive")
        _require(0 < self.level < 1, f"verify.level={self.level} must be in (0, 1)")
        corrections = ("holm", "benjamini_hochberg")
        known = self.correction in corrections
        _require(known, f"verify.correction={self.correction}: there are {', '.join(corrections)}")
        kinds = ("none", "docstrings", "stdlib", "text")
        _require(self.corpus in kinds, f"verify.corpus={self.corpus}: there are {', '.join(kinds)}")
        _require(self.corpus != "text" or bool(self.path), "verify.corpus=text needs verify.path=FILE_OR_FOLDER")


@dataclass(frozen=True)
class TableSettings:
    """The tabular benchmark (see `nas.commands.tabulate`).

    Attributes:
      parts: slot -> names of the parts that are combined with those of all others; a slot that is not named has its
        simplest part.
      seeds: training seeds of each candidate, counted up from `train.seed`.
    """

    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: int = 2

    def __post_init__(self) -> None:
        _require(all(self.parts.values()), "table.parts must name a part or more for each slot")
        _require(self.seeds >= 1, f"table.seeds={self.seeds} must be at least 1")


@dataclass(frozen=True)
class SimulateSettings:
    """Searches on a table (see `nas.commands.simulate`).

    Attributes:
      table: file of `nas tabulate`; null for the one in results_dir.
      transfer: another one, on which searches start from what was learned on the first.
      seeds: searches of each design.
      workers: trials in flight.
      processes: at a time; null for one on each core.
    """

    table: str | None = None
    transfer: str | None = None
    seeds: int = 200
    workers: int = 1
    processes: int | None = None

    def __post_init__(self) -> None:
        _require(self.seeds >= 2, f"simulate.seeds={self.seeds} must be at least 2")
        _require(self.workers >= 1, f"simulate.workers={self.workers} must be at least 1")
        _require(self.processes is None or self.processes >= 1, f"simulate.processes={self.processes} must be positive")


@dataclass(frozen=True)
class Settings:
    """The whole configuration of one search. Each field but the scalars is a group of `conf/`.

    Attributes:
      store: URL of a folder that all machines reach (see `nas.store`); null where results_dir is one.
    """

    seed: int = 0
    name: str | None = None
    results_dir: str = "results"
    store: str | None = None
    notes_dir: str = "results/notes"
    resume: str | None = None
    path: str | None = None
    search: SearchSettings = field(default_factory=SearchSettings)
    walk: WalkSettings = field(default_factory=WalkSettings)
    baselines: BaselinesSettings = field(default_factory=BaselinesSettings)
    search_space: SearchSpaceSettings = field(default_factory=SearchSpaceSettings)
    proposer: ProposerSettings = field(default_factory=ProposerSettings)
    llm: LlmSettings = field(default_factory=LlmSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    fitness: FitnessSettings = field(default_factory=FitnessSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    meta: MetaSettings = field(default_factory=MetaSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    tripwire: TripwireSettings = field(default_factory=TripwireSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    table: TableSettings = field(default_factory=TableSettings)
    simulate: SimulateSettings = field(default_factory=SimulateSettings)
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)

    def __post_init__(self) -> None:
        _require(
            self.name is None or ("/" not in self.name and self.name not in (".", "..")),
            f"name={self.name} must be the name of one folder in results_dir",
        )
        for name, url in (("store", self.store), ("resume", self.resume), ("search.shared", self.search.shared)):
            _require(
                not has_credentials(url or ""),  # the sentence does not repeat them
                f"{name} has a user, a password or a key in it, and would be written down: leave them out of the URL, "
                "and set them in the environment, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        _require(
            self.store is None
            or re.match(r"[a-z][a-z0-9+.-]*://[^/]", self.store.replace(":///", "://", 1)) is not None,
            f"store={self.store} must be a URL: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or file:///FOLDER",
        )
        _require(
            self.path is None or self.corpus.kind != "stdlib",
            f"path={self.path} needs corpus=text, token_bin or huggingface",
        )
        _require(
            self.proposer.kind != "llm" or bool(self.llm.models),
            "proposer=llm needs llm.models=[NAME], and llm.base_url=URL unless it is OpenAI's own",
        )
        _require(not self.fitness.judge or self.llm.judge, f"fitness.judge={self.fitness.judge} needs llm.judge=true")
        of_each, kind = max((self.execution.gpus_per_trial, "gpus"), (self.execution.tpus_per_trial, "tpus"))
        _require(
            self.train.microbatch % max(1, int(of_each)) == 0,
            f"train.batch / train.accumulate, {self.train.microbatch} windows, can't be shared out equally among "
            f"execution.{kind}_per_trial={of_each:g}: make it a multiple of that",
        )
