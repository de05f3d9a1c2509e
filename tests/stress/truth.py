"""What a stored row must hold: a function of its key's number and its version, so that any process can check
any row without being told what was put.

A row of key `number` in version `version` is the two ids (number, version) and then a window of a table of
random ids; where the window begins and how long it is follows from both. Every eighth key has an irregular
attention mask.

The Ledger is what writer and readers share: a file of three numbers per key, which bound the versions that a
read may give.
"""

from __future__ import annotations

import logging
import pathlib
import struct

import numpy as np
import tokcask

TOKENIZER_SHA = "5e" * 32
SEQUENCE_LEN = 4096
GONE = -1
"""The version of a row that the `missing` callable made, and in the ledger of a key that is not stored."""

_TABLE_IDS = 1 << 18
_MASK64 = (1 << 64) - 1


def key(number: int) -> tokcask.CacheKey:
    return tokcask.CacheKey(f"{number:016x}", TOKENIZER_SHA, SEQUENCE_LEN)


def _mix(number: int, version: int) -> int:
    """64 well mixed bits."""
    x = (number * 0x9E3779B97F4A7C15 + version * 0xC2B2AE3D27D4EB4F + 0x165667B19E3779F9) & _MASK64
    x = ((x ^ (x >> 31)) * 0xBF58476D1CE4E5B9) & _MASK64
    return x ^ (x >> 29)


class Truth:
    """Makes rows and checks them."""

    def __init__(self, seed: int) -> None:
        table = np.random.default_rng(seed).integers(0, 129_000, _TABLE_IDS, dtype=np.int32)
        self._ids = table.tobytes()
        self._odd = (table & 1).tobytes()
        self._ones = np.ones(SEQUENCE_LEN, dtype=np.int32).tobytes()

    def row(self, number: int, version: int) -> tuple[bytes, bytes]:
        """The bytes of input_ids and of attention_mask."""
        bits = _mix(number, version)
        kind = bits & 15
        # Six in ten inside a leaf page, three in one to three overflow pages, one in up to seven.
        shortest, longest = (0, 440) if kind < 10 else (440, 2000) if kind < 15 else (2000, SEQUENCE_LEN - 2)
        length = shortest + (bits >> 4) % (longest - shortest)
        start = (bits >> 32) % (_TABLE_IDS - length)
        window = slice(4 * start, 4 * (start + length))
        ids = struct.pack("=ii", number, version) + self._ids[window]
        if number % 8:
            return ids, self._ones[: 4 * (length + 2)]
        return ids, struct.pack("=ii", 0, 1) + self._odd[window]

    def tokens(self, number: int, version: int) -> tokcask.CachedTokens:
        ids, mask = self.row(number, version)
        return tokcask.CachedTokens(np.frombuffer(ids, dtype=np.int32), np.frombuffer(mask, dtype=np.int32))

    def fault(self, number: int, ids: np.ndarray, mask: np.ndarray) -> str | None:
        """What is wrong with the row that was read for `number`; None if it is one of the key's versions."""
        if ids.dtype != np.int32 or mask.dtype != np.int32 or ids.ndim != 1 or mask.ndim != 1:
            return f"arrays of {ids.dtype} and {mask.dtype}, {ids.ndim}-D and {mask.ndim}-D"
        if ids.flags.writeable or mask.flags.writeable:
            return "an array is writable"
        if len(ids) < 2 or ids[0] != number or ids[1] < 0:
            return f"another row: {len(ids)} tokens, beginning with {ids[:2].tolist()}"
        version = int(ids[1])
        expected_ids, expected_mask = self.row(number, version)
        if ids.tobytes() != expected_ids:
            return (
                f"wrong input_ids in version {version}: {len(ids)} tokens, expected {len(expected_ids) // 4}"
            )
        if mask.tobytes() != expected_mask:
            return f"wrong attention_mask in version {version}"
        return None


class Ledger:
    """Per key: the newest version that may be in the store (`newest`, raised before a put), the oldest that
    may still be served (`oldest`, raised when the put is committed), and, while the writer rests, the version
    that is stored (`stored`, GONE if none). `resting` is 0 while the writer works."""

    def __init__(self, path: pathlib.Path, keys: int, writable: bool = False) -> None:
        if writable and not path.exists():
            path.write_bytes(bytes(8 * (1 + 3 * keys)))
        words = np.memmap(path, dtype=np.int64, mode="r+" if writable else "r", shape=(1 + 3 * keys,))
        self._resting = words[:1]
        self.newest, self.oldest, self.stored = words[1:].reshape(3, keys)

    @property
    def resting(self) -> int:
        return int(self._resting[0])

    @resting.setter
    def resting(self, number: int) -> None:
        self._resting[0] = number


def explains_misses(record: logging.LogRecord) -> bool:
    """Whether it is the line about a run's misses, with no damage among them."""
    text = record.getMessage()
    return " misses, " in text and "damaged" not in text
