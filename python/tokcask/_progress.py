"""How far a long call has come, for people or for a function of the caller's."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Progress = bool | Callable[[int, int | None], object] | None
"""None: a bar if standard error is a terminal and tqdm is installed. True: a bar in any case. False: none. A function is
called with the number of rows that are done, and of all rows if it is known."""


@contextlib.contextmanager
def shown(progress: Progress, total: int | None, what: str) -> Iterator[Callable[[int], None]]:
    """A function to be called with the number of rows that are done more."""
    if callable(progress):
        done = 0

        def report(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        yield report
        return
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
        wanted = "if installed"
    else:
        wanted = "in any case"
    if not progress:
        yield lambda more: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        if wanted == "in any case":
            raise ImportError("progress=True needs the package tqdm: pip install tqdm") from error
        yield lambda more: None
        return
    with tqdm(total=total, desc=what, unit=" rows") as bar:
        yield lambda more: bar.update(more) and None
