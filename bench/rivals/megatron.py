"""Megatron-LM's IndexedDataset."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from suite.corpus import Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, fill, pad_sequence

MEGATRON_VARIABLE = "TOKCASK_BENCH_MEGATRON"


class Megatron(Rival):
    """Its own IndexedDataset, mapped into memory, and its own builder."""

    name = "Megatron"
    layout = "megatron"
    modules = ("megatron.core.datasets.indexed_dataset",)
    packages = ("megatron-core",)
    scenarios = (*Rival.scenarios, "memory")

    def load(self) -> None:
        place = os.environ.get(MEGATRON_VARIABLE)
        if place and place not in sys.path:
            sys.path.append(place)
        super().load()

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        from megatron.core.datasets import indexed_dataset

        prefix = str(directory / "corpus")
        builder = indexed_dataset.IndexedDatasetBuilder(indexed_dataset.get_bin_path(prefix), dtype=np.int32)
        for _, ids in corpus.rows():
            builder.add_item(torch.from_numpy(np.array(ids)))
            builder.end_document()
        builder.finalize(indexed_dataset.get_idx_path(prefix))

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        from megatron.core.datasets.indexed_dataset import IndexedDataset

        return IndexedDataset(str(directory / "corpus"), mmap=True)

    def collate_ids(self) -> Callable[[Any], Batch]:
        return fill


class MegatronPadSequence(Megatron):
    name = "Megatron, pad_sequence"
    scenarios = ("batch", "loader")

    def collate_ids(self) -> Callable[[Any], Batch]:
        return pad_sequence
