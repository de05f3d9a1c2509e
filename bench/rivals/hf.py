"""Hugging Face datasets: Arrow files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from suite.corpus import PAD, Corpus
from torch.utils.data import Dataset

from rivals.base import Batch, Rival, fill


class HfDatasets(Rival):
    """Arrow on disk, mapped, in NumPy format; padding by hand."""

    name = "HF datasets"
    layout = "hf"
    modules = ("datasets",)
    packages = ("datasets", "pyarrow")
    scenarios = (*Rival.scenarios, "memory")

    def prepare(self, corpus: Corpus, directory: pathlib.Path) -> None:
        import datasets
        import pyarrow

        column = pyarrow.ListArray.from_arrays(
            pyarrow.array(np.asarray(corpus.offsets), pyarrow.int32()), pyarrow.array(np.asarray(corpus.ids))
        )
        datasets.disable_progress_bars()
        datasets.Dataset(pyarrow.table({"input_ids": column})).save_to_disk(directory)

    def open(self, corpus: Corpus, directory: pathlib.Path) -> Dataset:
        import datasets

        # Without dtype each row would be converted to int64.
        return datasets.load_from_disk(str(directory)).with_format("numpy", dtype=np.int32)

    def reader(self, dataset: Dataset) -> Callable[[int], np.ndarray]:
        return lambda index: dataset[index]["input_ids"]

    def collate_ids(self) -> Callable[[Any], Batch]:
        return fill_items


def fill_items(items: Sequence[dict[str, np.ndarray]]) -> torch.Tensor:
    return fill([item["input_ids"] for item in items])


class HfCollator(HfDatasets):
    """With collators of transformers. Their tokenizer only pads; it is made here, without a network."""

    name = "HF datasets, collator"
    modules = ("datasets", "transformers")
    packages = ("datasets", "pyarrow", "transformers", "tokenizers")
    scenarios = ("batch", "loader")

    def _tokenizer(self, inputs: list[str]) -> Any:
        import tokenizers
        import transformers

        backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": PAD}, unk_token="<pad>"))
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend, pad_token="<pad>", model_input_names=inputs
        )

    def collate_ids(self) -> Callable[[Any], Batch]:
        import transformers

        return transformers.DataCollatorWithPadding(self._tokenizer(["input_ids"]))

    def collate_all(self) -> Callable[[Any], dict[str, torch.Tensor]]:
        import transformers

        return transformers.DataCollatorForLanguageModeling(
            self._tokenizer(["input_ids", "attention_mask"]), mlm=False
        )
