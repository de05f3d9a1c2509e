"""TokenDataset: the entries of a list of keys as a map-style dataset for PyTorch's DataLoader."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Self, SupportsIndex

import numpy as np
import torch.utils.data
from numpy.typing import NDArray

from tokcask._adapters import adapted
from tokcask._arrays import as_int32
from tokcask._core import CachedTokens, CacheKey, Dataset, TokenizedCache
from tokcask._encoding import LOSS_MASK, NO_LENGTH, Recipe
from tokcask._errors import MissingEntryError
from tokcask._progress import Progress
from tokcask._rows import (
    Filler,
    RowMaker,
    RowReader,
    TokenizationStats,
    filled,
    indexable,
    length_of,
)
from tokcask.torch._collate import pack_in_order

Made = Any
"""CachedTokens, another mapping with input_ids, or the ids themselves."""


class TokenDataset(torch.utils.data.Dataset[CachedTokens]):
    """The tokens stored under each of a fixed list of keys, by index.

        dataset = TokenDataset("tokens", keys)
        loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=4, collate_fn=collate)

    root      the directory of an existing store; it is opened read-only, and may be written meanwhile
    keys      CacheKey objects or their canonical forms, in the order of the items; a key may repeat
    missing   what to do about a key that the store has no entry for, when the dataset is opened and later,
              e.g. after the entry was pruned or cleared:
              "error"     MissingEntryError (a KeyError), also at once if any key has none
              "drop"      leave such keys out when it is opened; MissingEntryError later
              a callable  which is given the index and returns the item's tokens: CachedTokens, a mapping with
                          input_ids, or the ids themselves. It may tokenize; spawn needs it to be picklable
    populate  have the whole store read into the page cache in the background
    derive_lengths, allow_network_filesystem
              as in TokenizedCache.open()

    dataset[i] is a CachedTokens: a read-only mapping of two read-only int32 arrays, input_ids and
    attention_mask, that lie in the store's memory map. They stay valid and unchanged for as long as they are
    held, which keeps their pages from being reused: hold a batch, not an epoch.

    Processes: works in forked workers and in those started by spawn or forkserver, without a worker_init_fn.
    Pickling takes the path and the keys (16 bytes each); where the records lie is resolved once and shared. A data set of
    from_rows() also pickles its rows: with spawn and many rows, give it a datasets.Dataset, which pickles as a path.
    What all of them read counts for one run: the newest that this process has on the store, or one of its own.
    Threads: all methods may be called from any thread.
    Snapshots: every call sees what was committed last, and pins nothing from 40 ms after it on.
    Eviction: the entries of an open dataset are protected from it, as all that a living run used. A store that
    is full of them declines what is put.
    """

    column_names = ("input_ids", "attention_mask")
    stats: TokenizationStats | None = None
    """What from_rows() did, in the process that called it; None otherwise."""
    _fingerprint: str | None = None

    def __init__(
        self,
        root: str | os.PathLike[str],
        keys: Iterable[CacheKey | str],
        *,
        missing: Literal["error", "drop"] | Callable[[int], Made] | RowMaker = "error",
        populate: bool = False,
        derive_lengths: bool = True,
        allow_network_filesystem: bool = False,
        allow_empty: bool = False,
        _masked: bool = False,
    ) -> None:
        if not callable(missing) and missing not in ("error", "drop"):
            raise ValueError(f"missing must be 'error', 'drop' or a callable, not {missing!r}")
        self._make = missing if callable(missing) else None
        self._derive_lengths = derive_lengths
        self._allow_network_filesystem = allow_network_filesystem
        self._native = Dataset(
            root,
            keys,
            missing="keep" if callable(missing) else missing,
            populate=populate,
            derive_lengths=derive_lengths,
            allow_network_filesystem=allow_network_filesystem,
        )
        kept = self._native.kept()
        self._indices = kept if len(kept) else None
        self._masked = _masked
        if len(self) == 0 and not allow_empty:
            raise ValueError(
                f"{self.root}: a data set without items"
                + ("" if missing != "drop" else ", because no key has an entry")
                + "; an inventory by TokenizedCache.keys() has only entries of exactly the given length and tokenizer, so "
                "make it of your rows by TokenDataset.from_rows(), or pass allow_empty=True"
            )
        if not _masked and LOSS_MASK.encode() in self._native.packed_keys():
            raise ValueError(
                f"{self.root}: some of these entries say that only the assistant's tokens are learned "
                "(assistant_only_loss); read them by tokcask.trl.sft_dataset(), which makes labels of that"
            )

    @classmethod
    def from_rows(
        cls,
        root: str | os.PathLike[str],
        rows: Iterable[Mapping[str, Any]],
        *,
        tokenizer: Any,
        max_length: int | None = None,
        text_field: str = "text",
        section_field: str | None = None,
        max_bytes: int | None = None,
        progress: Progress = None,
        populate: bool = False,
        allow_empty: bool = False,
    ) -> Self:
        """The tokens of these rows, in their order: a row that is there twice is an item twice, and nothing else that the
        store holds is in it.

        The store in root is made if there is none, and gets what it lacks, as by pretokenize_rows() with the same
        arguments; the keys are the same. So a row that was edited costs one tokenization, and gives its new tokens. One
        that the store has no room for is tokenized when it is asked for.

        rows        a list, a Dataset of the library datasets, or any iterable of dicts with `text` or `messages`. They are
                    kept, and read again where tokens are missing
        max_length  what the tokenizer cuts them to; None cuts nothing
        max_bytes   of the store; see TokenizedCache.open()

        `stats` has how many rows were in the store. Errors are those of pretokenize_rows().
        """
        tokenizer = adapted(tokenizer)
        recipe = Recipe(NO_LENGTH if max_length is None else length_of(max_length))
        reader = RowReader(tokenizer, recipe, text_field=text_field, section_field=section_field)
        given = indexable(rows)
        maker = RowMaker(given, tokenizer, recipe, reader)
        with TokenizedCache.open(root, max_bytes=max_bytes) as cache:
            filler = Filler(tokenizer, recipe, cache)
            ids, stats = filled(filler, given, reader, progress)
            maker.places = np.arange(len(ids))
            # While the cache is open, so that nothing is evicted in between.
            keys = map(filler.key, ids)
            dataset = cls(root, keys, missing=maker, populate=populate, allow_empty=allow_empty)
        dataset.stats = stats
        return dataset

    def __len__(self) -> int:
        return len(self._native)

    def __getitem__(self, index: SupportsIndex) -> CachedTokens:
        row = self._native.item(index)
        return self._made(index) if row is None else row

    def __getitems__(self, indices: Iterable[SupportsIndex]) -> list[CachedTokens]:
        """The items at these indices, from one snapshot: what a DataLoader asks for once per batch."""
        if not isinstance(indices, (list, tuple, np.ndarray)):
            indices = list(indices)
        rows, missing = self._native.items(indices)
        for position in missing:
            rows[position] = self._made(indices[position])
        return rows

    def _made(self, index: SupportsIndex) -> CachedTokens:
        place = range(len(self))[index]
        if isinstance(self._make, RowMaker):
            return self._make.of_key(place, self.key(place))
        if self._make is None:
            raise MissingEntryError(
                f"{self.root}: item {place} ({self.key(place)}) has no entry any more; it was evicted, "
                "pruned, cleared or damaged. Give TokenDataset missing=FUNCTION to have such items made"
            )
        made = self._make(place)
        if not isinstance(made, Mapping):
            made = {"input_ids": made}
        mask = made.get("attention_mask")
        return CachedTokens(
            as_int32(np.asarray(made["input_ids"]), "input_ids"),
            None if mask is None else as_int32(np.asarray(mask), "attention_mask"),
        )

    @property
    def root(self) -> str:
        """The store's directory."""
        return self._native.root

    @property
    def run_id(self) -> int:
        """The run it belongs to; 0 if it has none or is closed."""
        return self._native.run_id

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each item when it was resolved, without touching them; 0 for a missing one.

        A new array.
        """
        return self._native.lengths()

    def lengths_with_made(self) -> NDArray[np.int32]:
        """`lengths`, with those of items that have no entry and are made by `missing`. Makes each of them once."""
        lengths = self.lengths
        empty = np.flatnonzero(lengths == 0)
        if self._make is not None and len(empty):
            _, missing = self._native.items(empty)
            for position in missing:
                lengths[empty[position]] = len(self._made(empty[position]).input_ids)
        return lengths

    @property
    def fingerprint(self) -> str:
        """Of the keys in their order, 32 hexadecimal digits: the same for the same data, in every process. A loader keeps
        it in its state, and goes on with no other data."""
        if self._fingerprint is None:
            self._fingerprint = hashlib.blake2b(self._native.packed_keys(), digest_size=16).hexdigest()
        return self._fingerprint

    @property
    def indices(self) -> NDArray[np.int64]:
        """The place of each item in the list of keys given: with missing="drop", some are left out."""
        return np.arange(len(self)) if self._indices is None else self._indices

    def key(self, index: SupportsIndex) -> CacheKey:
        """The key of an item."""
        return self._native.key(index)

    def prefetch(self, indices: Iterable[SupportsIndex]) -> None:
        """Has the pages of these items read into the page cache in the background, in file order.

        Returns at once. The page cache is the machine's: what the main process asks for, its workers have.
        """
        self._native.prefetch(indices)

    def pack(self, sequence_len: int) -> PackedDataset:
        """The items packed into rows of at most sequence_len tokens; see PackedDataset."""
        return PackedDataset(self, sequence_len)

    def close(self) -> None:
        """Lets go of the store. Idempotent. Arrays stay valid; items cannot be read any more."""
        self._native.close()

    def __reduce__(self) -> tuple[Any, ...]:
        state = (
            self.root,
            self._native.packed_keys(),
            self._make,
            self._indices,
            self._derive_lengths,
            self._allow_network_filesystem,
            self._native.run_id,
            self._masked,
        )
        return _reopen, (type(self), *state)

    def __repr__(self) -> str:
        return f"<tokcask.torch.TokenDataset {self.root!r}: {len(self)} items>"


def _reopen(
    kind: type[TokenDataset],
    root: str,
    packed: bytes,
    make: Callable[[int], Made] | None,
    indices: NDArray[np.int64] | None,
    derive_lengths: bool,
    allow_network_filesystem: bool,
    run_id: int,
    masked: bool,
) -> TokenDataset:
    dataset = kind.__new__(kind)
    dataset._masked = masked
    dataset._make = make
    dataset._indices = indices
    dataset._derive_lengths = derive_lengths
    dataset._allow_network_filesystem = allow_network_filesystem
    dataset._native = Dataset(
        root,
        packed=packed,
        missing="keep",
        derive_lengths=derive_lengths,
        allow_network_filesystem=allow_network_filesystem,
        run_id=run_id,
    )
    return dataset


class PackedDataset(torch.utils.data.Dataset[list[CachedTokens]]):
    """The items of a TokenDataset packed into rows: each item here is a group of its items.

        packed = dataset.pack(2048)
        loader = DataLoader(packed, batch_size=8, shuffle=True, collate_fn=Collator(max_length=2048))

    Packed by best fit decreasing over the lengths alone, so no token is touched. An item is never split and
    never cut: one that is longer than sequence_len is a ValueError. Items without tokens are left out. Items without
    an entry are made once by `missing`, for their lengths.

    packed[j] is a list of rows, for tokcask.torch.collate, which makes one row of each group. Processes and
    threads as for TokenDataset.
    """

    def __init__(self, dataset: TokenDataset, sequence_len: int) -> None:
        self.dataset = dataset
        self.sequence_len = sequence_len
        # Two arrays, because a million small ones would be copied into every worker.
        self._items, ends = pack_in_order(dataset.lengths_with_made(), sequence_len)
        self._bounds = np.concatenate([np.zeros(1, np.int64), ends])

    @property
    def fingerprint(self) -> str:
        """Of the data set and of what decides the packs; see TokenDataset.fingerprint."""
        return f"{self.dataset.fingerprint} packed to {self.sequence_len}"

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def group(self, index: SupportsIndex) -> NDArray[np.int64]:
        """Which items of the dataset are in the group at this index."""
        place = range(len(self))[index]
        return self._items[self._bounds[place] : self._bounds[place + 1]]

    def __getitem__(self, index: SupportsIndex) -> list[CachedTokens]:
        return self.dataset.__getitems__(self.group(index))

    def __getitems__(self, indices: Iterable[SupportsIndex]) -> list[list[CachedTokens]]:
        """The groups at these indices, from one snapshot."""
        groups = [self.group(index) for index in indices]
        rows = self.dataset.__getitems__(np.concatenate(groups)) if groups else []
        ends = np.cumsum([len(group) for group in groups], dtype=np.int64).tolist()
        return [rows[end - len(group) : end] for group, end in zip(groups, ends)]

    def prefetch(self, indices: Iterable[SupportsIndex]) -> None:
        """Has the pages of these groups read into the page cache; see TokenDataset.prefetch()."""
        groups = [self.group(index) for index in indices]
        if groups:
            self.dataset.prefetch(np.concatenate(groups))

    def __repr__(self) -> str:
        return f"<tokcask.torch.PackedDataset of {self.dataset!r}: {len(self)} groups>"
