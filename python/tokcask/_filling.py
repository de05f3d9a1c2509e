"""Tokenizing what a store lacks, batch by batch, together with other processes that do the same."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from tokcask._claims import SLOTS, Claims, slot_of
from tokcask._core import CachedTokens, CacheKey, TokenizedCache

# Sections that are tokenized, and then stored, at a time: what a crash can cost.
_BATCH = 1000
# Seconds without a sign of life after which a batch that another process claims is tokenized nevertheless.
_PATIENCE = 60.0
_log = logging.getLogger("tokcask")

Item = TypeVar("Item")
Made = dict[str, CachedTokens]


class Store:
    """A cache under the keys of one tokenizer and length.

    alone   no other process fills it, so there are no claims, and fill() is not for it
    """

    def __init__(
        self, cache: TokenizedCache, tokenizer_sha: str, sequence_len: int, *, alone: bool = False
    ) -> None:
        self._cache = cache
        self.tokenizer_sha = tokenizer_sha
        self._sequence_len = sequence_len
        self._shared = not (cache.read_only or alone)
        self._claims: Claims | None = None
        self.watch()

    def watch(self) -> None:
        """To be called before a look-up whose misses go to fill(): what others fill from now on is noticed there."""
        if self._shared:
            self._claims = Claims(str(self._cache.root))

    def key(self, section: str) -> CacheKey:
        return CacheKey(section, self.tokenizer_sha, self._sequence_len)

    def declare(self, traits: tuple[bool, bool]) -> None:
        """Lets entries of other lengths serve, as far as it is known how the tokenizer cuts."""
        at_length, to_prefix = traits
        if at_length or to_prefix:
            self._cache.declare_tokenizer(
                self.tokenizer_sha, cuts_at_length=at_length, cuts_to_prefix=to_prefix
            )

    def find(self, sections: list[str]) -> Made:
        found = self._cache.get_many([self.key(section) for section in sections])
        return {
            section: tokens for section, tokens in zip(sections, found, strict=True) if tokens is not None
        }

    def fill(
        self,
        missing: Mapping[str, Item],
        make: Callable[[list[Item]], Made],
        *,
        in_flight: int = 0,
        took: Callable[[Mapping[str, CachedTokens], bool], None],
    ) -> float:
        """Has make() tokenize what find() did not find, and stores it; returns the seconds make() took.

        took() is told of each part: sections and tokens, and whether they were made here or by another process
        meanwhile. Each section is made by one of the processes that fill this store, and by another one if that
        dies. With in_flight, make() is called by so many threads.
        """
        if self._claims is None:
            with Tokenizing(make, in_flight) as tokenizing:
                for _, made in tokenizing.run((None, items) for items in chunks(missing.values())):
                    took(made, True)
                return tokenizing.seconds
        return _Filling(self, self._claims, missing, make, took).run(in_flight)

    def add(self, made: Made) -> None:
        """Stores, and returns when others see it."""
        self._cache.put_many([(self.key(section), tokens) for section, tokens in made.items()])
        self._cache.flush()

    def finish(self, tokenize_seconds: float) -> int:
        self._cache.add_tokenize_seconds(tokenize_seconds)
        if not self._cache.read_only:
            self._cache.flush()
        return self._cache.total_bytes


@dataclass(frozen=True)
class _Batch:
    """Sections of the slots from first to last."""

    first: int
    last: int
    sections: list[str]


class _Filling:
    """One pass over what is missing: first what is free, then what others were at."""

    def __init__(
        self,
        store: Store,
        claims: Claims,
        missing: Mapping[str, Item],
        make: Callable[[list[Item]], Made],
        took: Callable[[Mapping[str, CachedTokens], bool], None],
    ) -> None:
        self._store = store
        self._claims = claims
        self._missing: Mapping[str, Any] = missing
        self._make = make
        self._took = took

    def run(self, in_flight: int) -> float:
        if not self._missing:
            return 0.0
        busy: list[_Batch] = []
        with self._claims, Tokenizing(self._make, in_flight) as tokenizing:
            self._finish(tokenizing.run(self._free(busy)))
            # One by one: nothing of ours is in the making while we wait, so no two wait for each other.
            for batch in busy:
                self._await(batch)
                self._finish(tokenizing.run([(batch, self._still_missing(batch))]))
            return tokenizing.seconds

    def _finish(self, results: Iterable[tuple[_Batch, Made]]) -> None:
        for batch, made in results:
            if made:
                self._store.add(made)
            self._claims.release(batch.first, batch.last)
            self._took(made, True)

    def _free(self, busy: list[_Batch]) -> Iterator[tuple[_Batch, list[Any]]]:
        for batch in _in_batches(self._missing):
            if self._claims.try_claim(batch.first, batch.last):
                yield batch, self._still_missing(batch)
            else:
                busy.append(batch)

    def _still_missing(self, batch: _Batch) -> list[Any]:
        sections = batch.sections
        if self._claims.begin(batch.first, batch.last):
            found = self._store.find(sections)
            if found:
                self._took(found, False)
            sections = [section for section in sections if section not in found]
        return [self._missing[section] for section in sections]

    def _await(self, batch: _Batch) -> None:
        """Waits for a claim, until nothing has happened for too long, as when its holder is stopped."""
        seen, since, pause = self._claims.progress(), time.monotonic(), 0.005
        while not self._claims.try_claim(batch.first, batch.last):
            now = self._claims.progress()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > _PATIENCE:
                _log.warning(
                    "%s: another process has been tokenizing the same %d texts for %.0f seconds; this one goes "
                    "on without waiting for it",
                    self._store._cache.root,
                    len(batch.sections),
                    _PATIENCE,
                )
                return
            time.sleep(pause)
            pause = min(2 * pause, 0.1)


class Tokenizing:
    """Calls make() for one list of items after another, by threads if there are any, and keeps the order.

    While it tokenizes, its caller stores what was made before.
    """

    def __init__(self, make: Callable[[list[Any]], Made], in_flight: int) -> None:
        self.seconds = 0.0
        self._make = make
        self._in_flight = in_flight
        self._pool = ThreadPoolExecutor(in_flight) if in_flight else None
        self._ended = 0.0

    def __enter__(self) -> Tokenizing:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, work: Iterable[tuple[Any, list[Any]]]) -> Iterator[tuple[Any, Made]]:
        """Each label of `work` with what make() made of its items."""
        running: deque[tuple[Any, Future[tuple[Made, float, float]]]] = deque()
        for label, items in work:
            if self._pool is None:
                yield label, self._counted(self._timed(items))
                continue
            running.append((label, self._pool.submit(self._timed, items)))
            if len(running) > self._in_flight:
                label, made = running.popleft()
                yield label, self._counted(made.result())
        for label, made in running:
            yield label, self._counted(made.result())

    def _timed(self, items: list[Any]) -> tuple[Made, float, float]:
        start = time.perf_counter()
        made = self._make(items) if items else {}
        return made, start, time.perf_counter()

    def _counted(self, result: tuple[Made, float, float]) -> Made:
        # Time that two calls share counts once.
        made, start, end = result
        self.seconds += max(0.0, end - max(start, self._ended))
        self._ended = max(end, self._ended)
        return made


def _batch_size(count: int) -> int:
    """Smaller ones for the ranks of a launcher, so that there is something to do for each."""
    try:
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        ranks = 1
    return _BATCH if ranks <= 1 else max(50, min(_BATCH, count // (8 * ranks)))


def _in_batches(sections: Iterable[str]) -> Iterator[_Batch]:
    slots: list[list[str]] = [[] for _ in range(SLOTS)]
    count = 0
    for section in sections:
        slots[slot_of(section)].append(section)
        count += 1
    size = _batch_size(count)
    batch: list[str] = []
    first = last = 0
    for slot, members in enumerate(slots):
        if batch and len(batch) + len(members) > size:
            yield _Batch(first, last, batch)
            batch = []
        if members:
            first = first if batch else slot
            last = slot
            batch.extend(members)
    if batch:
        yield _Batch(first, last, batch)


def chunks(items: Iterable[Item], size: int = _BATCH) -> Iterator[list[Item]]:
    """Lists of at most so many items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
