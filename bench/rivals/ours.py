"""tokcask itself, in the two ways that its users read."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from suite.corpus import PAD, Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, chunks, fill


class Tokcask(Rival):
    """TokenDataset and collate."""

    name = "tokcask"
    layout = "tokcask"
    modules = ("tokcask.torch",)
    packages = ("tokcask",)
    scenarios = (*Rival.scenarios, "memory")

    def load(self) -> None:
        super().load()
        for name in ("TokenDataset", "Collator"):
            getattr(sys.modules["tokcask.torch"], name)

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        import tokcask

        budget = (1 << 30) + 8 * corpus.ids.nbytes + 1024 * len(corpus)
        with tokcask.TokenizedCache.open(directory, max_bytes=budget) as cache:
            for rows in chunks(corpus.rows(), 10_000):
                cache.put_many(
                    (cache_key(key), tokcask.CachedTokens(ids, np.ones(len(ids), np.int32)))
                    for key, ids in rows
                )

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        import tokcask.torch

        # A list of a million strings would stay in this process's heap, and so in that of forked workers.
        return tokcask.torch.TokenDataset(directory, (bytes(key).decode() for key in corpus.keys))

    def reader(self, dataset: Dataset) -> Callable[[int], np.ndarray]:
        return lambda index: dataset[index]["input_ids"]

    def collate_ids(self) -> Callable[[Any], Batch]:
        import tokcask.torch

        return tokcask.torch.Collator(pad_token_id=PAD, labels=False, attention_mask=False)

    def collate_all(self) -> Callable[[Any], dict[str, torch.Tensor]]:
        import tokcask.torch

        return tokcask.torch.Collator(pad_token_id=PAD)


def cache_key(key: bytes) -> Any:
    import tokcask

    section, sha, length = key.decode().rsplit("|", 2)
    return tokcask.CacheKey(section, sha, int(length))


class GetDataset(Dataset):
    """The rows of a TokenizedCache, by get() and get_many()."""

    def __init__(self, root: pathlib.Path, keys: Sequence[Any]) -> None:
        import tokcask

        self.cache = tokcask.TokenizedCache.open(root, read_only=True)
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.cache.get(self.keys[index]).input_ids

    def __getitems__(self, indices: Sequence[int]) -> list[np.ndarray]:
        return [tokens.input_ids for tokens in self.cache.get_many([self.keys[index] for index in indices])]


class TokcaskGet(Tokcask):
    """TokenizedCache alone: get(key), and get_many(keys) with padding by hand."""

    name = "tokcask, get"
    modules = ("tokcask",)
    scenarios = ("pass", "item", "batch", "loader")

    def load(self) -> None:
        Rival.load(self)

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        return GetDataset(directory, [cache_key(bytes(key)) for key in corpus.keys])

    def reader(self, dataset: Dataset) -> Callable[[int], np.ndarray]:
        get, keys = dataset.cache.get, dataset.keys
        return lambda index: get(keys[index]).input_ids

    def collate_ids(self) -> Callable[[Any], Batch]:
        return fill

    def collate_all(self) -> None:
        return None
