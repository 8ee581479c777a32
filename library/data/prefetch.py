"""Work done ahead of time by a few threads: prefetching for all of `library/data`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD = 4  # items begun ahead, for each thread
HANDFUL = 32  # small things that a thread takes at a time

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead_of_time(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Generator[Result, None, None]:
    """`map(work, items)`, up to `ahead` items begun before they are asked for; with no workers, none is.

    Closing the iterator ends its threads, after the work that they are at.
    """
    if workers < 1:
        yield from map(work, items)
        return
    ahead = AHEAD * workers if ahead is None else ahead
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """`[work(item) for item in items]`, several at a time, in handfuls because handing over costs more than a look."""
    if workers < 2 or len(items) <= HANDFUL:
        return [work(item) for item in items]
    handfuls = [items[start : start + HANDFUL] for start in range(0, len(items), HANDFUL)]
    done = ahead_of_time(lambda handful: [work(item) for item in handful], handfuls, workers)
    return [result for results in done for result in results]
