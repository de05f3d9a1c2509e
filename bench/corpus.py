"""The tokens that every rival stores: one flat array of ids, where each record begins, and the records' keys.
Made once with a seed, or taken from a store of tokcask's."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

SEQUENCE_LEN = 2048
TOKENIZER_SHA = "be" * 32
PAD = 0
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
    about |= {"records": len(lengths), "tokens": int(offsets[-1])}
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
    ids = random.integers(PAD + 1, _IDS, int(lengths.sum()), dtype=np.int32)
    # Distinct and without an order, as hashes are: an odd factor permutes the numbers below 2**64.
    sections = np.arange(1, records + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = [f"{section:016x}|{TOKENIZER_SHA}|{SEQUENCE_LEN}".encode() for section in sections.tolist()]
    kind = "8 to 40 tokens" if short else "lengths like the kernel's files"
    _save(directory, ids, lengths, np.array(keys), {"seed": seed, "what": kind})


# Run apart: a process that has the store open would lose its locks by opening it a second time. The format is
# that of DESIGN.md.
_KEYS_PROGRAM = """
import lmdb, sys
with lmdb.open(sys.argv[1], readonly=True, create=False, max_dbs=2) as environment:
    records = environment.open_db(b"records", create=False)
    with environment.begin(records) as transaction, transaction.cursor() as cursor:
        for key in cursor.iternext(values=False):
            print(key.rstrip(b"\\0").decode())
"""


def take(directory: pathlib.Path, store: pathlib.Path) -> None:
    """The entries of a store of tokcask's, in an order without meaning."""
    import tokcask

    listing = subprocess.run(
        [sys.executable, "-c", _KEYS_PROGRAM, str(store)], check=True, capture_output=True, text=True
    )
    keys, rows = [], []
    with tokcask.TokenizedCache.open(store, read_only=True) as cache:
        for line in listing.stdout.splitlines():
            section, sha, length = line.rsplit("|", 2)
            tokens = cache.get(tokcask.CacheKey(section, sha, int(length)))
            if tokens is not None and len(tokens.input_ids) > 0:
                keys.append(line.encode())
                rows.append(tokens.input_ids.copy())
    order = np.random.default_rng(0).permutation(len(rows))
    lengths = np.array([len(rows[index]) for index in order], dtype=np.int64)
    _save(
        directory,
        np.concatenate([rows[index] for index in order]),
        lengths,
        np.array([keys[index] for index in order]),
        {"seed": None, "what": f"the entries of {store.name}"},
    )
