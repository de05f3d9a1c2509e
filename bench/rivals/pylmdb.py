"""LMDB through py-lmdb."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from suite.corpus import Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, fill


class LmdbDataset(Dataset):
    """Raw ids under their keys. Opened by each process for itself, as LMDB wants it. One read transaction for
    as long as the data set lives, so that values are views into the map: the fastest way, right for data that
    no longer changes."""

    def __init__(self, path: str, keys: Sequence[bytes]) -> None:
        self._path = path
        self._keys = keys
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_keys": self._keys, "_process": 0}

    def _open(self) -> None:
        import lmdb

        self._environment = lmdb.open(
            self._path, readonly=True, create=False, lock=False, readahead=False, meminit=False
        )
        self._get = self._environment.begin(buffers=True).get
        self._process = os.getpid()

    def close(self) -> None:
        if self._process == os.getpid():
            del self._get
            self._environment.close()
        self._process = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> np.ndarray:
        if self._process != os.getpid():
            self._open()
        return np.frombuffer(self._get(self._keys[index]), np.int32)


class PyLmdb(Rival):
    name = "py-lmdb"
    layout = "lmdb"
    modules = ("lmdb",)
    packages = ("lmdb",)
    scenarios = (*Rival.scenarios, "memory")

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        import lmdb

        size = (1 << 30) + 8 * corpus.ids.nbytes + 1024 * len(corpus)
        with (
            lmdb.open(str(directory), map_size=size) as environment,
            environment.begin(write=True) as transaction,
        ):
            for index in np.argsort(corpus.keys):
                transaction.put(bytes(corpus.keys[index]), corpus.row(index).tobytes(), append=True)

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        # A list is faster; a million keys are better kept in a mapped file, which workers share.
        keys = corpus.keys.tolist() if len(corpus) <= 100_000 else MappedKeys(corpus.directory / "keys.npy")
        return LmdbDataset(str(directory), keys)

    def before_fork(self, dataset: Dataset) -> None:
        dataset.close()  # an environment that the parent has open cannot be opened in the child

    def collate_ids(self) -> Callable[[Any], Batch]:
        return fill


class MappedKeys:
    """The keys of a corpus in its file; pickled by path."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._keys = np.load(path, mmap_mode="r")

    def __reduce__(self) -> tuple:
        return MappedKeys, (self._path,)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> bytes:
        return self._keys[index]
