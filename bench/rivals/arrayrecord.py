"""ArrayRecord, Google's file of records with random access."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from suite.corpus import Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, fill


class ArrayRecordDataset(Dataset):
    def __init__(self, path: str) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._source = ArrayRecordDataSource(path)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.frombuffer(self._source[index], np.int32)

    def __getitems__(self, indices: Sequence[int]) -> list[np.ndarray]:
        return [np.frombuffer(record, np.int32) for record in self._source.__getitems__(indices)]


class ArrayRecord(Rival):
    """One record per group and no compression, as its documentation tells for random access. Positions only."""

    name = "ArrayRecord"
    layout = "arrayrecord"
    modules = ("array_record.python.array_record_data_source",)
    packages = ("array_record",)

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        writer = ArrayRecordWriter(str(directory / "tokens.arrayrecord"), "group_size:1,uncompressed")
        for _, ids in corpus.rows():
            writer.write(ids.tobytes())
        writer.close()

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        return ArrayRecordDataset(str(directory / "tokens.arrayrecord"))

    def collate_ids(self) -> Callable[[Any], Batch]:
        return fill
