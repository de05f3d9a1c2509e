"""The layout of the seed: see seed_store.py."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from suite.corpus import Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, fill


class SeedDataset(Dataset):
    def __init__(self, root: pathlib.Path, keys: Sequence[str]) -> None:
        from rivals.seed_store import SeedCache

        self._cache = SeedCache(root)
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._cache.get(self._keys[index])[0]


class Seed(Rival):
    name = "seed (npz)"
    layout = "seed"
    share = 10

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        from rivals.seed_store import QuickFill

        cache = QuickFill(directory)
        for key, ids in corpus.rows():
            cache.put(key.decode(), ids, np.ones(len(ids), np.int32))
        cache.save_manifest()

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        return SeedDataset(directory, [key.decode() for key in corpus.keys.tolist()])

    def collate_ids(self) -> Callable[[Any], Batch]:
        return fill
