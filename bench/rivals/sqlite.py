"""SQLite: a table of blobs under their keys."""

from __future__ import annotations

import os
import pathlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from suite.corpus import Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, fill


class SqliteDataset(Dataset):
    """A connection must not be carried over a fork, so each process opens its own."""

    def __init__(self, path: str, keys: Sequence[bytes]) -> None:
        self._path = path
        self._keys = keys
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_keys": self._keys, "_process": 0}

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> np.ndarray:
        if self._process != os.getpid():
            self._connection = sqlite3.connect(f"file:{self._path}?mode=ro&immutable=1", uri=True)
            self._connection.execute(f"PRAGMA mmap_size={1 << 40}")
            self._execute = self._connection.execute
            self._process = os.getpid()
        key = self._keys[index]
        return np.frombuffer(
            self._execute("SELECT ids FROM tokens WHERE key = ?", (key,)).fetchone()[0], np.int32
        )


class SqliteBlobs(Rival):
    """Mapped, immutable, with keys put in order, and a rowid for the blobs: the fastest that its pages on speed
    tell for blobs of this size."""

    name = "SQLite"
    layout = "sqlite"
    modules = ("sqlite3",)

    def versions(self) -> dict[str, str]:
        return {"SQLite": sqlite3.sqlite_version}

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        with sqlite3.connect(directory / "tokens.sqlite") as connection:
            connection.execute("PRAGMA page_size=4096")
            connection.execute("CREATE TABLE tokens (key BLOB PRIMARY KEY, ids BLOB NOT NULL)")
            connection.executemany(
                "INSERT INTO tokens VALUES (?, ?)",
                (
                    (bytes(corpus.keys[index]), corpus.row(index).tobytes())
                    for index in np.argsort(corpus.keys)
                ),
            )
        connection.close()

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        return SqliteDataset(str(directory / "tokens.sqlite"), corpus.keys.tolist())

    def collate_ids(self) -> Callable[[Any], Batch]:
        return fill
