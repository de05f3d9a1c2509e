"""diskcache: SQLite with large values in files of their own."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from suite.corpus import Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, fill


class DiskCacheDataset(Dataset):
    """Safe to use after a fork and to pickle, as its documentation says: it opens by process and thread."""

    def __init__(self, root: pathlib.Path, keys: Sequence[bytes]) -> None:
        import diskcache

        self._cache = diskcache.Cache(str(root))
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.frombuffer(self._cache[self._keys[index]], np.int32)


class DiskCache(Rival):
    """Values as bytes, which it stores without pickle. Statistics and eviction are off: a get writes nothing."""

    name = "diskcache"
    layout = "diskcache"
    modules = ("diskcache",)
    packages = ("diskcache",)

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        import diskcache

        with diskcache.Cache(str(directory), eviction_policy="none", size_limit=1 << 40) as cache:
            rows = corpus.rows()
            while True:
                with cache.transact():  # what its documentation tells for many puts
                    for _, (key, ids) in zip(range(1000), rows, strict=False):
                        cache[key] = ids.tobytes()
                    else:
                        if len(cache) == len(corpus):
                            return

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        return DiskCacheDataset(directory, corpus.keys.tolist())

    def collate_ids(self) -> Callable[[Any], Batch]:
        return fill
