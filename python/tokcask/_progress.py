"""How far a long call has come, for people or for a function of the caller's."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Progress = bool | Callable[[int, int | None], object] | None
"""None: a bar if standard error is a terminal and tqdm is installed. True: a bar in any case. False: none. A function is
called with the number of rows that are done, and the number of all rows, or None."""


@contextlib.contextmanager
def shown(progress: Progress, total: int | None, what: str) -> Iterator[Callable[[int], None]]:
    """A function to be called with how many more rows are done."""
    if callable(progress):
        done = 0

        def report(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        yield report
        return
    wanted = sys.stderr is not None and sys.stderr.isatty() if progress is None else progress
    try:
        if wanted:
            from tqdm.auto import tqdm
    except ImportError as error:
        if progress:
            raise ImportError("progress=True needs the package tqdm: pip install tqdm") from error
        wanted = False
    if not wanted:
        yield lambda more: None
        return
    with tqdm(total=total, desc=what, unit=" rows") as bar:
        yield lambda more: bar.update(more) and None
