"""The process that changes the store while loaders read it: it puts and replaces entries, evicts at the cap,
prunes and clears. Started by loader_stress.py.

One command a line on standard input, one JSON object with its figures as the answer:
  commit   commits something, so that slots of dead readers are freed
  rest     stops changing the store and writes into the ledger what is stored
  resume   goes on
It ends when standard input does, when its parent is gone, and after a time limit.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pathlib
import select
import sys
import time
from collections.abc import Callable

import numpy as np
import tokcask
from truth import GONE, Ledger, Truth, explains_misses, key


class Writer:
    def __init__(self, store: pathlib.Path, ledger: Ledger, keys: int, max_bytes: int, seed: int) -> None:
        self._store = store
        self._ledger = ledger
        self._keys = keys
        self._max_bytes = max_bytes
        self._truth = Truth(seed)
        self._random = np.random.default_rng([seed, 1])
        self._rests = 0
        logging.getLogger("tokcask").addFilter(self.warn)
        self.totals = dict.fromkeys(
            ("puts", "declined", "evicted", "pruned", "cleared", "hindered", "warnings"), 0
        )
        self._open()

    def warn(self, record: logging.LogRecord) -> bool:
        """Counts a warning of tokcask's, except of what belongs to this test: declined puts, explained misses."""
        if "are not stored" not in record.getMessage() and not explains_misses(record):
            self.totals["warnings"] += 1
            print(f"writer: {record.getMessage()}", file=sys.stderr, flush=True)
        return False

    def _open(self) -> None:
        self._cache = tokcask.TokenizedCache.open(self._store, max_bytes=self._max_bytes, batch_age=0.05)

    def close(self) -> None:
        run = self._cache.stats()["run"]
        self._cache.close()
        for name in ("puts", "declined", "evicted"):
            self.totals[name] += run[name]

    def _reopen(self) -> None:
        """A new run: what the old one put may be evicted now, unless readers are older."""
        self.close()
        self._open()

    def put(self, numbers: list[int]) -> None:
        newest, oldest = self._ledger.newest, self._ledger.oldest
        rows = []
        for number in numbers:
            newest[number] += 1
            rows.append((key(number), self._truth.tokens(number, int(newest[number]))))
        self._cache.put_many(rows)
        self._cache.flush()
        # A put that was declined says nothing about what readers may be given.
        for number, tokens in zip(numbers, self._cache.get_many([k for k, _ in rows]), strict=True):
            if tokens is not None:
                oldest[number] = tokens.input_ids[1]

    def remove(self, name: str, removal: Callable[[], int]) -> None:
        """Prunes or clears. When the file is full and readers hold all free pages, it cannot go to its end,
        and says so."""
        try:
            self.totals[name] += removal()
        except tokcask.BusyError as error:
            if "readers hold" not in str(error):
                raise
            self.totals["hindered"] += 1

    def step(self) -> None:
        """Some change."""
        chance = self._random.random()
        if chance < 0.03:
            self._reopen()
        elif chance < 0.06:
            seconds = self._random.uniform(0.05, 2.0)
            self.remove("pruned", lambda: self._cache.prune(older_than_seconds=seconds))
        elif chance < 0.065:
            self.remove("cleared", self._cache.clear)
            for some in np.array_split(self._random.permutation(self._keys), 4):
                self.put(some.tolist())
        else:
            count = int(self._random.integers(1, 128))
            self.put(self._random.choice(self._keys, count, replace=False).tolist())

    def rest(self) -> None:
        self._reopen()  # a new handle knows of the store only what others can know
        found = self._cache.get_many([key(number) for number in range(self._keys)])
        for number, tokens in enumerate(found):
            self._ledger.stored[number] = GONE if tokens is None else tokens.input_ids[1]
        self._rests += 1
        self._ledger.resting = self._rests

    def resume(self) -> None:
        self._ledger.resting = 0

    def commit(self) -> None:
        """A commit that changes no row of the ledger's."""
        self._cache.put(key(self._keys), self._truth.tokens(self._keys, 0))
        self._cache.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("store", type=pathlib.Path)
    parser.add_argument("ledger", type=pathlib.Path)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--max-bytes", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--limit", type=float, required=True, help="seconds after which it ends by itself")
    arguments = parser.parse_args()

    parent = os.getppid()
    end = time.monotonic() + arguments.limit
    ledger = Ledger(arguments.ledger, arguments.keys, writable=True)
    writer = Writer(arguments.store, ledger, arguments.keys, arguments.max_bytes, arguments.seed)
    for some in np.array_split(np.arange(arguments.keys), 4):
        writer.put(some.tolist())
    print(json.dumps(writer.totals), flush=True)

    pause = 0.0
    while os.getppid() == parent and time.monotonic() < end:
        if select.select([sys.stdin], [], [], 0.5 if ledger.resting else pause)[0]:
            command = sys.stdin.readline().strip()
            if not command:
                break
            {"commit": writer.commit, "rest": writer.rest, "resume": writer.resume}[command]()
            print(json.dumps(writer.totals), flush=True)
        elif not ledger.resting:
            start = time.monotonic()
            writer.step()
            pause = min(0.1, time.monotonic() - start)  # at most half a core, so that readers can read
    writer.close()


if __name__ == "__main__":
    main()
