"""The adapters: how each rival stores the corpus, opens it, reads an item and makes a batch.

A new one is a subclass of Rival in a module of its own, named in rivals/__init__.py. What it opens is a data set of torch's that a DataLoader
can use as it is; what its collate functions make is compared with the others' before anything is timed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pathlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from suite.corpus import PAD, Corpus
from torch.utils.data import Dataset

Batch = torch.Tensor | dict[str, torch.Tensor]


class Rival:
    """What the benchmark asks of each. An adapter has no state: it travels to workers by its class."""

    name: str
    layout: str
    """The folder of its files; those with the same layout share them."""
    modules: tuple[str, ...] = ()
    """What a process has to import to use it."""
    packages: tuple[str, ...] = ()
    """What it is installed as, for the versions in the report."""
    scenarios: tuple[str, ...] = ("pass", "item", "batch", "loader", "cold")
    share: int = 1
    """A pass reads every so-manieth record, and its time after opening is multiplied: for rivals so slow that seven
    rounds of whole passes would take the afternoon."""
    blocks: bool = False
    """Its items are not records but equal blocks of the tokens, one after another."""

    def load(self) -> None:
        """Imports it."""
        for module in self.modules:
            importlib.import_module(module)

    def unavailable(self) -> str | None:
        """Why it cannot take part; None if it can."""
        try:
            self.load()
        except Exception as error:  # whatever an import does
            return f"{type(error).__name__}: {error}"
        return None

    def versions(self) -> dict[str, str]:
        found = {}
        for package in self.packages:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = "not installed as a package"
        return found

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        """Writes the corpus into the empty `directory`."""
        raise NotImplementedError

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        raise NotImplementedError

    def reader(self, dataset: Dataset) -> Callable[[int], np.ndarray]:
        """Gives the ids of one item."""
        return dataset.__getitem__

    def before_fork(self, dataset: Dataset) -> None:
        """What its users have to do before workers are forked from a process that has read."""

    def collate_ids(self) -> Callable[[Any], Batch]:
        """A collate function that makes a padded int64 tensor."""
        raise NotImplementedError

    def collate_all(self) -> Callable[[Any], dict[str, torch.Tensor]] | None:
        """One that makes input_ids, attention_mask and labels; None if it has none."""
        return None


def fetch(dataset: Dataset, indices: Sequence[int]) -> Any:
    """What torch's DataLoader gives to a collate function."""
    if hasattr(dataset, "__getitems__"):
        return dataset.__getitems__(indices)
    return [dataset[index] for index in indices]


def ids_of(batch: Batch) -> torch.Tensor:
    return batch if isinstance(batch, torch.Tensor) else batch["input_ids"]


def fill(rows: Sequence[np.ndarray]) -> torch.Tensor:
    """Padding by hand, the fastest way found: one NumPy array, and one converting copy per row."""
    batch = np.full((len(rows), max(map(len, rows))), PAD, dtype=np.int64)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(batch)


def pad_sequence(rows: Sequence[np.ndarray]) -> torch.Tensor:
    """Padding with torch's own function. Converted afterwards: faster than each row before."""
    rows = [torch.from_numpy(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD).long()


def chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(items, size)):
        yield chunk
