"""Parsing in several threads at once."""

import ast
import gc
import threading

from common import SPACE

from nas.parsing import parse


def test_threads_parse_at_the_same_time() -> None:
    """A callback of the garbage collector lets other threads run in the middle of a conversion."""
    sources = [baseline.source for baseline in SPACE.baselines().values()]
    wanted = [ast.dump(parse(source)) for source in sources]
    wrong: list[object] = []

    def work() -> None:
        try:
            for _ in range(8):
                wrong.extend(
                    tree for source, tree in zip(sources, wanted, strict=True) if ast.dump(parse(source)) != tree
                )
        except SystemError as error:
            wrong.append(error)

    switch = lambda phase, info: sum(range(50))  # noqa: E731
    gc.callbacks.append(switch)
    try:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.callbacks.remove(switch)
    assert not wrong
