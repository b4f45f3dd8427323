"""All probe tasks by name. A new one is a file beside this one, and a line here."""

from collections.abc import Mapping

from nas.tasks import compression, copying, fuzzy_recall, induction, memorization, mqar, parity, recall, word_problem
from nas.tasks.probe import Task

PROBES: Mapping[str, Task] = {
    "in_context_recall": recall.IN_CONTEXT,
    "fuzzy_recall": fuzzy_recall.TASK,
    "noisy_recall": recall.NOISY,
    "selective_copying": copying.TASK,
    "compression": compression.TASK,
    "memorization": memorization.TASK,
    "mqar": mqar.TASK,
    "induction": induction.TASK,
    "parity": parity.TASK,
    "s5": word_problem.S5,
    "a5": word_problem.A5,
}
