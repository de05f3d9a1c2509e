"""The tokens that every rival stores: one flat array of ids, where each record begins, and the records' keys.
Made once with a seed, or taken from a store of tokcask's."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterator

import numpy as np

SEQUENCE_LEN = 2048
TOKENIZER_SHA = "be" * 32
PAD = 199_999
"""Is no record's id, so that a collator that knows padding by its id is right too."""
_IDS = 129_000


class Corpus:
    """Reads what make() or take() left in `directory`."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.ids = np.load(directory / "ids.npy", mmap_mode="r")
        self.offsets = np.load(directory / "offsets.npy", mmap_mode="r")
        self.keys = np.load(directory / "keys.npy", mmap_mode="r")
        self.about = json.loads((directory / "about.json").read_text())

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def rows(self) -> Iterator[tuple[bytes, np.ndarray]]:
        for index, key in enumerate(self.keys):
            yield bytes(key), self.row(index)


def _save(
    directory: pathlib.Path, ids: np.ndarray, lengths: np.ndarray, keys: np.ndarray, about: dict
) -> None:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / "ids.npy", ids)
    np.save(directory / "offsets.npy", offsets)
    np.save(directory / "keys.npy", keys)
    (directory / "keys.txt").write_bytes(b"".join(bytes(key) + b"\n" for key in keys))
    about |= {"records": len(lengths), "tokens": int(offsets[-1])}
    about["sha256"] = hashlib.sha256(ids.data).hexdigest()
    (directory / "about.json").write_text(json.dumps(about) + "\n")  # last: the corpus is complete


def make(directory: pathlib.Path, records: int, seed: int, short: bool = False) -> None:
    """Lengths as those of the kernel's files cut at 2048: log-normal with a median of 1,296 tokens, of which
    62 % are shorter than the cut; the mean is 1,243. `short`: 8 to 40 tokens."""
    random = np.random.default_rng(seed)
    if short:
        lengths = random.integers(8, 41, records)
    else:
        lengths = np.exp(random.normal(np.log(SEQUENCE_LEN) - 0.305 * 1.5, 1.5, records)).astype(np.int64)
        lengths = lengths.clip(1, SEQUENCE_LEN)
    ids = random.integers(0, _IDS, int(lengths.sum()), dtype=np.int32)
    # Distinct and without an order, as hashes are: an odd factor permutes the numbers below 2**64.
    sections = np.arange(1, records + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = [f"{section:016x}|{TOKENIZER_SHA}|{SEQUENCE_LEN}".encode() for section in sections.tolist()]
    kind = "8 to 40 tokens" if short else "lengths like the kernel's files"
    _save(directory, ids, lengths, np.array(keys), {"seed": seed, "what": kind})


def take(directory: pathlib.Path, store: pathlib.Path, seed: int) -> None:
    """The entries of a store of tokcask's that have tokens, in an order without meaning."""
    import tokcask

    with tokcask.TokenizedCache.open(store, read_only=True) as cache:
        keys = sorted(map(str, cache.keys()))
        random = np.random.default_rng(seed)
        keys = [keys[index] for index in random.permutation(len(keys))]
        rows = []
        for key in keys:
            section, sha, length = key.rsplit("|", 2)
            rows.append(cache.get(tokcask.CacheKey(section, sha, int(length))).input_ids.copy())
    kept = [index for index, row in enumerate(rows) if len(row) > 0]
    lengths = np.array([len(rows[index]) for index in kept], dtype=np.int64)
    ids = np.concatenate([rows[index] for index in kept])
    assert ids.max() < PAD
    about = {"seed": seed, "what": "tokens of the files"}
    _save(directory, ids, lengths, np.array([keys[index].encode() for index in kept]), about)
