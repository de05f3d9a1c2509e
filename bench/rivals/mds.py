"""MosaicML Streaming's shards."""

from __future__ import annotations

import importlib
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from suite.corpus import Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, fill

_TORCHVISION = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class _StandIn(types.ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class MosaicMds(Rival):
    """Its own writer, without compression, and its LocalDataset, which is for random access on a local disk."""

    name = "MosaicML MDS"
    layout = "mds"
    modules = ("streaming",)
    packages = ("mosaicml-streaming",)

    def load(self) -> None:
        # Its package imports torchvision for data sets of images. Where there is none (PyPI has no build for the
        # CPU alone), an empty module does while it is imported. transformers would take that for a real one, so
        # it comes before.
        importlib.import_module("transformers")
        try:
            import torchvision  # noqa: F401
        except Exception:
            sys.modules.update({name: _StandIn(name) for name in _TORCHVISION})
        try:
            super().load()
        finally:
            for name in _TORCHVISION:
                if isinstance(sys.modules.get(name), _StandIn):
                    del sys.modules[name]

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        import streaming

        directory.rmdir()  # its writer makes it
        with streaming.MDSWriter(out=str(directory), columns={"input_ids": "ndarray:int32"}) as writer:
            for _, ids in corpus.rows():
                writer.write({"input_ids": np.array(ids)})

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        import streaming

        return streaming.LocalDataset(local=str(directory))

    def reader(self, dataset: Dataset) -> Callable[[int], np.ndarray]:
        return lambda index: dataset[index]["input_ids"]

    def collate_ids(self) -> Callable[[Any], Batch]:
        return lambda items: fill([item["input_ids"] for item in items])
