"""Entries of a store in batches, in the order asked for, without a trace in the store."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tokcask._core import CacheKey, EntryReader

Int32s = npt.NDArray[np.int32]
ORDERS = ("key", "path", "shuffle")

# What one batch holds at most, unless a single entry is larger.
_BATCH_ENTRIES = 1024
_BATCH_TOKENS = 4 << 20


@dataclasses.dataclass(slots=True)
class Batch:
    """Some entries in columns."""

    keys: list[CacheKey]
    lengths: npt.NDArray[np.int64]
    ids: Int32s  # of one entry after the other
    masks: dict[int, Int32s]  # by row, those that are not all ones

    def rows(self) -> Iterator[Int32s]:
        """The ids of each entry."""
        return iter(np.split(self.ids, np.cumsum(self.lengths)[:-1]))

    def with_eod(self, eod: int) -> Batch:
        """With one more token, which the mask does not hide, at the end of each entry."""
        ids = np.insert(self.ids, np.cumsum(self.lengths), np.int32(eod))
        masks = {row: np.append(mask, np.int32(1)) for row, mask in self.masks.items()}
        return Batch(self.keys, self.lengths + 1, ids, masks)


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """The entries to export."""

    tokenizer_sha: str
    sequence_len: int  # 0: any
    entries: int
    tokens: int


def _mixed(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 of each number: fixed arithmetic, so that an order never depends on a library's version."""
    with np.errstate(over="ignore"):
        z = value + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


class _Plan:
    """The keys of a selection in 20 bytes each, and the order in which to fetch them."""

    def __init__(self, reader: EntryReader, selection: Selection) -> None:
        self._reader = reader
        self._selection = selection
        self._sections, self._lengths, self._named = reader.keys(
            selection.tokenizer_sha, selection.sequence_len
        )

    def by_path(self) -> npt.NDArray[np.intp]:
        """By the first file that has the section; those that no file has behind, in key order."""
        sources = self._reader.source_sections()
        _, first, number = np.unique(
            np.concatenate([sources, self._sections]), axis=0, return_index=True, return_inverse=True
        )
        rank = first[number.reshape(-1)[len(sources) :]]
        rank[rank >= len(sources)] = len(sources)
        rank[list(self._named)] = len(sources)  # zeros among the numbers
        return np.argsort(rank, kind="stable")

    def shuffled(self, seed: int) -> npt.NDArray[np.intp]:
        """By a hash of seed and key: other entries that come or go do not change the order of the rest."""
        values = self._sections[:, 0] ^ self._sections[:, 1]
        for row, section in self._named.items():
            if re.fullmatch("[0-9a-f]{16}", section):  # of before ids had 32 digits
                values[row] = int(section, 16)
                continue
            digest = hashlib.blake2b(section.encode(), digest_size=8).digest()
            values[row] = int.from_bytes(digest, "little")
        mark = _mixed(np.array([seed], np.uint64))
        rank = _mixed(_mixed(values ^ mark) ^ self._lengths.astype(np.uint64))
        return np.argsort(rank, kind="stable")

    def _key(self, row: int) -> CacheKey:
        section = self._named.get(row) or "".join(f"{int(half):016x}" for half in self._sections[row])
        return CacheKey(section, self._selection.tokenizer_sha, int(self._lengths[row]))

    def batches(self, order: npt.NDArray[np.intp]) -> Iterator[list[CacheKey]]:
        mean = max(self._selection.tokens // max(self._selection.entries, 1), 1)
        step = int(np.clip(_BATCH_TOKENS // mean, 1, _BATCH_ENTRIES))
        for start in range(0, len(order), step):
            yield [self._key(int(row)) for row in order[start : start + step]]


class Walk:
    """The batches of a selection in one of ORDERS. Iterated once."""

    def __init__(self, reader: EntryReader, selection: Selection, order: str, seed: int) -> None:
        self._reader = reader
        self._selection = selection
        self._order = order
        self._seed = seed
        self.gone = 0  # entries that went away between the look at the keys and the read, or are damaged

    @property
    def damaged(self) -> int:
        """Records that the walk in key order has left out."""
        return self._reader.damaged

    def __iter__(self) -> Iterator[Batch]:
        if self._order == "key":
            return self._in_key_order()
        return self._planned()

    def _in_key_order(self) -> Iterator[Batch]:
        while True:
            columns = self._reader.next(self._selection.tokenizer_sha, self._selection.sequence_len)
            if columns is None:
                return
            yield Batch(*columns)

    def _planned(self) -> Iterator[Batch]:
        plan = _Plan(self._reader, self._selection)
        order = plan.by_path() if self._order == "path" else plan.shuffled(self._seed)
        for keys in plan.batches(order):
            columns = self._reader.fetch(keys)
            batch = Batch(*columns)
            self.gone += len(keys) - len(batch.keys)
            if batch.keys:
                yield batch


def tokenizer_sha_of(tokenizer: str) -> str | None:
    """The identity of the tokenizer in a file; None if there is no such file."""
    import os

    if not os.path.isfile(tokenizer):
        return None
    from tokcask._hf import FileTokenizer

    try:
        return FileTokenizer(tokenizer, 1).sha256
    except ImportError:
        raise
    except Exception as error:  # whatever the library raises
        raise ValueError(f"tokenizer {tokenizer}: {error}") from error


def select(reader: EntryReader, tokenizer: str | None, sequence_len: int | None) -> tuple[Selection, Any]:
    """What to export, and the sequence lengths with their entries. ValueError if that is several tokenizers."""
    groups = reader.groups()
    if tokenizer is not None:
        sha = tokenizer_sha_of(tokenizer)
        known = {group[0] for group in groups}
        matching = [sha] if sha else [tokenizer] if tokenizer in known else []
        matching = matching or sorted(name for name in known if name.startswith(tokenizer))
        if len(matching) != 1:
            found = f"{len(matching)} tokenizers of the store begin" if matching else "no tokenizer begins"
            raise ValueError(
                f"tokenizer: {found} with {tokenizer}; it has {', '.join(sorted(known)) or 'none'}"
            )
        groups = [group for group in groups if group[0] == matching[0]]
    if sequence_len is not None:
        groups = [group for group in groups if group[1] == sequence_len]
    entries: dict[str, int] = {}
    lengths: dict[int, int] = {}
    for sha, length, count, _ in groups:
        entries[sha] = entries.get(sha, 0) + count
        lengths[length] = lengths.get(length, 0) + count
    if not entries:
        raise ValueError("nothing to export: the store has no such entry")
    if len(entries) > 1:
        names = ", ".join(f"{sha} ({count} entries)" for sha, count in sorted(entries.items()))
        raise ValueError(
            f"the store has entries of {len(entries)} tokenizers, which are not mixed; choose one with "
            f"tokenizer (--tokenizer): {names}"
        )
    (sha,) = entries
    total = sum(group[3] for group in groups)
    return Selection(sha, sequence_len or 0, entries[sha], total), dict(sorted(lengths.items()))
