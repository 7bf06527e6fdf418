"""Work on the next piece in the background while the last one is used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """`make` of each item, in order; the next one is made in a thread while one is used.

    What `make` raises comes where its result would have come.
    """
    # OpenMP counts threads per thread: without this the background would take all cores.
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(1, "ahead", torch.set_num_threads, (threads,)) as pool:
        before: Future[Made] | None = None
        for item in items:
            now = pool.submit(make, item)
            if before is not None:
                yield before.result()
            before = now
        if before is not None:
            yield before.result()
