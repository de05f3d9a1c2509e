"""litdata's loader of tokens."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from suite.corpus import Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, fill

BLOCK = 2048


class LitdataTokens(Rival):
    """Its own writer and StreamingDataset with TokensLoader, as it tells for pretraining. It keeps no records:
    an item is the next block of 2048 tokens, whoever they belong to, so it has nothing to pad or to look up."""

    name = "litdata, blocks"
    layout = "litdata"
    modules = ("litdata",)
    packages = ("litdata",)
    blocks = True
    scenarios = ("pass", "item", "batch", "cold")

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        import litdata
        from litdata.streaming import Cache

        # The writer that its optimize() uses, which feeds it from processes of its own in no certain order.
        directory.rmdir()
        chunk = BLOCK * (1 << 13)
        cache = Cache(str(directory), chunk_size=chunk, item_loader=litdata.TokensLoader(block_size=BLOCK))
        ids = corpus.ids
        for number, begin in enumerate(range(0, len(ids) // BLOCK * BLOCK, BLOCK)):
            cache[number] = np.array(ids[begin : begin + BLOCK])
        cache.done()
        cache.merge()

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        import litdata

        return litdata.StreamingDataset(str(directory), item_loader=litdata.TokensLoader(block_size=BLOCK))

    def reader(self, dataset: Dataset) -> Callable[[int], np.ndarray]:
        return dataset.__getitem__

    def collate_ids(self) -> Callable[[Any], Batch]:
        return fill
