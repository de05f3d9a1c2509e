"""The adapters: how each rival stores the corpus, opens it, reads an item and makes a batch.

A new one is a subclass of Rival, in the list RIVALS. What it opens is a data set of torch's that a DataLoader
can use as it is; what its collate functions make is compared with the others' before anything is timed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from corpus import PAD, Corpus
from torch.utils.data import Dataset

Batch = torch.Tensor | dict[str, torch.Tensor]
MEGATRON_VARIABLE = "TOKCASK_BENCH_MEGATRON"


class Rival:
    """What the benchmark asks of each. An adapter has no state: it travels to workers by its class."""

    name: str
    layout: str
    """The folder of its files; those with the same layout share them."""
    modules: tuple[str, ...] = ()
    """What a process has to import to use it."""
    packages: tuple[str, ...] = ()
    """What it is installed as, for the versions in the report."""
    scenarios: tuple[str, ...] = ("item", "batch", "loader", "memory")

    def load(self) -> None:
        """Imports it."""
        for module in self.modules:
            importlib.import_module(module)

    def unavailable(self) -> str | None:
        """Why it cannot take part; None if it can."""
        try:
            self.load()
        except (ImportError, AttributeError) as error:
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


# ---- tokcask ---------------------------------------------------------------------------------------------


class Tokcask(Rival):
    """TokenDataset and collate."""

    name = "tokcask"
    layout = "tokcask"
    modules = ("tokcask.torch",)
    packages = ("tokcask",)

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
    scenarios = ("item", "batch", "loader")

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


# ---- Megatron --------------------------------------------------------------------------------------------


class Megatron(Rival):
    """Its own IndexedDataset, mapped into memory, and its own builder."""

    name = "Megatron"
    layout = "megatron"
    modules = ("megatron.core.datasets.indexed_dataset",)
    packages = ("megatron-core",)

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


# ---- py-lmdb ---------------------------------------------------------------------------------------------


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


# ---- Hugging Face datasets -------------------------------------------------------------------------------


class HfDatasets(Rival):
    """Arrow on disk, mapped, in NumPy format; padding by hand."""

    name = "HF datasets"
    layout = "hf"
    modules = ("datasets",)
    packages = ("datasets", "pyarrow")

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


RIVALS: tuple[Rival, ...] = (
    Tokcask(),
    TokcaskGet(),
    Megatron(),
    MegatronPadSequence(),
    PyLmdb(),
    HfDatasets(),
    HfCollator(),
)
