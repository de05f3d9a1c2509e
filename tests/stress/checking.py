"""What runs in the workers: a data set whose batches carry what they may hold, and a collate function that
checks them and returns counts."""

from __future__ import annotations

import faulthandler
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokcask
from torch.utils.data import Dataset
from truth import GONE, Ledger, Truth, explains_misses

# The result of a batch. Numbers: a tensor would travel as a file descriptor, which a killed worker can
# no longer hand over.
COUNTS = ("reads", "missing", "wrong", "exact")


class GetDataset(Dataset):
    """Stands in for tokcask.torch.TokenDataset: a plain data set over TokenizedCache.get_many."""

    def __init__(self, root: pathlib.Path, keys: Sequence[tokcask.CacheKey], *, missing: Callable) -> None:
        self._cache = tokcask.TokenizedCache.open(root, read_only=True)
        self._keys = keys
        self._missing = missing

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        (row,) = self.__getitems__([index])
        return {"input_ids": row.input_ids, "attention_mask": row.attention_mask}

    def __getitems__(self, indices: Sequence[int]) -> list[tokcask.CachedTokens]:
        found = self._cache.get_many([self._keys[index] for index in indices])
        return [self._missing(i) if row is None else row for i, row in zip(indices, found, strict=True)]


def gone(index: int) -> tokcask.CachedTokens:
    """The `missing` callable."""
    ids = np.array([index, GONE], dtype=np.int32)
    return tokcask.CachedTokens(ids, np.ones(2, dtype=np.int32))


class Warnings(logging.Handler):
    """Counts tokcask's warnings in this process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0
        logging.getLogger("tokcask").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if explains_misses(record):
            return
        self.count += 1
        print(f"process {os.getpid()}: {record.getMessage()}", file=sys.stderr, flush=True)


@dataclass
class Batch:
    """Rows, with the ledger as it was before and after they were asked for."""

    indices: list[int]
    numbers: list[int]
    ids: list[np.ndarray]
    masks: list[np.ndarray]
    rows: list[Any] | None
    resting: int
    oldest: np.ndarray
    newest: np.ndarray
    stored: np.ndarray


class Watched(Dataset):
    """A data set of the tokens of some keys, whose batches carry what they may hold. As that one, pickled by
    path."""

    def __init__(self, tokens: Dataset, numbers: np.ndarray, ledger: pathlib.Path, keys: int) -> None:
        self._tokens = tokens
        self._numbers = numbers
        self._path = ledger
        self._ledger = Ledger(ledger, keys)
        self._keys = keys
        self._batches = 0

    def __reduce__(self) -> tuple:
        return Watched, (self._tokens, self._numbers, self._path, self._keys)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitems__(self, indices: list[int]) -> Batch:
        ledger = self._ledger
        numbers = self._numbers[indices]
        resting = ledger.resting
        oldest = ledger.oldest[numbers]
        self._batches += 1
        rows = None
        if self._batches % 16:
            rows = self._tokens.__getitems__(indices)
            ids = [row.input_ids for row in rows]
            masks = [row.attention_mask for row in rows]
        else:
            items = [self._tokens[index] for index in indices]
            ids = [item["input_ids"] for item in items]
            masks = [item["attention_mask"] for item in items]
        newest, stored = ledger.newest[numbers], ledger.stored[numbers]
        if ledger.resting != resting:
            resting = 0
        return Batch(indices, numbers.tolist(), ids, masks, rows, resting, oldest, newest, stored)


class Check:
    """The collate function: checks a batch and returns counts. Now and then it keeps a batch, to see whether
    its views still say the same some batches later."""

    def __init__(self, seed: int, collate: Callable | None) -> None:
        self._seed = seed
        self._collate = collate
        self._truth: Truth | None = None

    def _start(self) -> None:
        """In the process that checks. A fork has a copy of its parent's state, and counts its own."""
        self._pid = os.getpid()
        self._truth = Truth(self._seed)
        self._warnings = Warnings()
        self._warned = 0
        self._batches = 0
        self._kept: Batch | None = None
        faulthandler.register(signal.SIGUSR1, all_threads=True)

    def __reduce__(self) -> tuple:
        return Check, (self._seed, self._collate)

    def __call__(self, batch: Batch) -> tuple[int, ...]:
        if self._truth is None or self._pid != os.getpid():
            self._start()
        counts = dict.fromkeys(COUNTS, 0)
        self._check(batch, counts)
        self._batches += 1
        if self._batches % 8 == 0:
            if self._kept is not None:
                self._check_bytes(self._kept, counts)
            self._kept = batch
        if self._batches % 32 == 4 and self._collate is not None and batch.rows is not None:
            self._check_tensors(batch, counts)
        counts["wrong"] += self._warnings.count - self._warned
        self._warned = self._warnings.count
        return tuple(counts[name] for name in COUNTS)

    def _check(self, batch: Batch, counts: dict[str, int]) -> None:
        bounds = zip(batch.oldest.tolist(), batch.newest.tolist(), batch.stored.tolist(), strict=True)
        for row, (oldest, newest, stored) in enumerate(bounds):
            ids = batch.ids[row]
            version = int(ids[1]) if len(ids) > 1 else None
            if batch.resting:
                counts["exact"] += 1
                if version != stored:
                    self._report(batch, row, f"version {version}, but {stored} is stored", counts)
            if version == GONE and len(ids) == 2 and ids[0] == batch.indices[row]:
                counts["missing"] += 1
                continue
            counts["reads"] += 1
            fault = self._truth.fault(batch.numbers[row], ids, batch.masks[row])
            if fault is None and not oldest <= version <= newest:
                fault = f"version {version} is not one of {oldest} to {newest}"
            if fault is not None:
                self._report(batch, row, fault, counts)

    def _check_bytes(self, batch: Batch, counts: dict[str, int]) -> None:
        for row, (number, ids, mask) in enumerate(zip(batch.numbers, batch.ids, batch.masks, strict=True)):
            if len(ids) > 2 and (fault := self._truth.fault(number, ids, mask)) is not None:
                self._report(batch, row, f"a view that was held: {fault}", counts)

    def _check_tensors(self, batch: Batch, counts: dict[str, int]) -> None:
        tensors = self._collate(batch.rows[:64])
        ids, mask = tensors["input_ids"].numpy(), tensors["attention_mask"].numpy()
        for row, (row_ids, row_mask) in enumerate(zip(batch.ids[:64], batch.masks, strict=False)):
            length = len(row_ids)
            if not (
                np.array_equal(ids[row, :length], row_ids)
                and np.array_equal(mask[row, :length], row_mask)
                and not ids[row, length:].any()
                and not mask[row, length:].any()
            ):
                self._report(batch, row, "its row of the collated tensors differs", counts)

    def _report(self, batch: Batch, row: int, fault: str, counts: dict[str, int]) -> None:
        counts["wrong"] += 1
        if counts["wrong"] <= 3:
            print(
                f"WRONG (seed {self._seed}, process {os.getpid()}): key {batch.numbers[row]}: {fault}",
                file=sys.stderr,
                flush=True,
            )
