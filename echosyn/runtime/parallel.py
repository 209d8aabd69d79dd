"""Items worked through by threads: in order, never far ahead, and on a CPU a core each."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

A = TypeVar("A")
R = TypeVar("R")


@contextmanager
def cores_apart() -> Iterator[int]:
    """Within the block torch computes in the thread that calls it, and in those made there: threads
    that share a small product wait for each other at its end, and for whatever else the machine
    runs, and its sums depend on how many they are. Yields how many threads torch had.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[A], R], items: Iterable[A], most: int
) -> Iterator[R]:
    """`work` of each item, in order, done by the pool; at most `most` are under way or wait to
    be taken.

    When a later one has failed already, its exception comes at once.
    """
    pending: deque[Future[R]] = deque()

    def first() -> R:
        for future in pending:
            if future.done():
                future.result()
        return pending.popleft().result()

    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) == most:
            yield first()
    while pending:
        yield first()
