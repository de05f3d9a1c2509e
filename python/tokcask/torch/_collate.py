"""Rows of tokens as batches of int64 tensors, made by one native call without the GIL."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

from tokcask import _core

_UINT32_MAX = 2**32 - 1
_NO_TOKENS = "there are no tokens in any row to collate"


class _Options(TypedDict, total=False):
    """The options of a Collator, for the signatures of collate()."""

    pad_token_id: int
    padding_side: Literal["right", "left"]
    max_length: int | None
    pad_to_multiple_of: int | None
    labels: bool
    attention_mask: bool
    ignore_pad_token: bool
    padding_free: bool
    packing: int | None
    truncation: Literal["keep_start", "keep_end"] | None
    loss: str | Sequence[str] | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Collator:
    """What collate() does with its options settled: a collate_fn for a DataLoader.

    Small, picklable, compares by value; may be called in any thread. ValueError for options that contradict
    each other.
    """

    pad_token_id: int = 0
    """What input_ids hold where padded."""
    padding_side: Literal["right", "left"] = "right"
    """Where rows are padded; "right" for padding_free."""
    max_length: int | None = None
    """Pad to so many tokens, and refuse longer rows; None: pad to the longest row."""
    pad_to_multiple_of: int | None = None
    """Round what rows are padded to up to a multiple of this."""
    labels: bool = True
    """Whether the batch has labels."""
    attention_mask: bool = True
    """Whether a padded batch has an attention_mask. Packed and flattened ones never have."""
    ignore_pad_token: bool = False
    """Whether labels are -100 wherever a row itself has pad_token_id."""
    padding_free: bool = False
    """Whether rows are laid one after another instead of padded."""
    packing: int | None = None
    """Put as many rows together as fit into so many tokens."""
    truncation: Literal["keep_start", "keep_end"] | None = None
    """Which end of a row that is longer than max_length, or packing, stays; None: such a row is an error."""
    loss: str | Sequence[str] | None = None
    """What is learned, by names of parts: "completion", "assistant", "labels", or names of the rows' own. With several, a
    token is learned where all say so. "all": every token. None: every token, and an error for rows that have such parts."""

    def __post_init__(self) -> None:
        if not -(2**63) <= operator.index(self.pad_token_id) < 2**63:
            raise ValueError(f"pad_token_id is {self.pad_token_id}, which does not fit into int64")
        if self.padding_side not in ("right", "left"):
            raise ValueError(f"padding_side is {self.padding_side!r}; it must be 'right' or 'left'")
        for name in ("max_length", "pad_to_multiple_of", "packing"):
            value = getattr(self, name)
            if value is not None and not 1 <= operator.index(value) < 2**63:
                raise ValueError(f"{name} is {value}; it must be at least 1, or None")
        if self.packing is not None and (self.max_length is not None or self.padding_free):
            raise ValueError("packing pads to its own length; it excludes max_length and padding_free")
        if self.truncation not in (None, "keep_start", "keep_end"):
            raise ValueError(
                f"truncation is {self.truncation!r}; it must be 'keep_start', 'keep_end' or None"
            )
        if self.truncation is not None and self.max_length is None and self.packing is None:
            raise ValueError("truncation needs max_length or packing, which say to how many tokens")
        if self.padding_free and self.padding_side == "left":
            raise ValueError("padding_free excludes padding_side='left'")
        if self.padding_free and self.max_length is not None and self.truncation is None:
            raise ValueError("padding_free pads nothing, so max_length needs truncation; or leave it out")
        if not isinstance(self.loss, (str, type(None))):
            object.__setattr__(self, "loss", tuple(self.loss))
        names = self._loss_names()
        if names is not None and not all(isinstance(name, str) for name in names):
            raise TypeError(f"loss is {self.loss!r}; it must be names of parts")
        if names is not None and len(names) > 1 and "all" in names:
            raise ValueError("loss has 'all' beside other names; 'all' is every token")

    def _loss_names(self) -> list[str] | None:
        if self.loss is None:
            return None
        names = [self.loss] if isinstance(self.loss, str) else list(self.loss)
        return [] if names == ["all"] else names

    def __call__(self, rows: Iterable[Any], *, out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The batch of the rows; see collate()."""
        if isinstance(rows, Mapping):
            raise TypeError(f"rows is a mapping ({type(rows).__name__}); give a list of rows")
        given = _core.Rows(rows if isinstance(rows, (list, tuple)) else list(rows))
        if len(given) == 0:
            raise ValueError("there are no rows to collate")
        padding = _core.Padding(
            self.pad_token_id,
            self.padding_side == "left",
            0 if self.padding_free else self.packing or self.max_length or 0,
            self.pad_to_multiple_of or 1,
            self.ignore_pad_token,
            (self.max_length or self.packing or 0) if self.truncation else 0,
            self.truncation == "keep_end",
            self._loss_names(),
        )
        if self.padding_free:
            return self._flattened(given, padding, out)
        if self.packing is not None:
            given.pack(self.packing, padding)
            if given.groups == 0:
                raise ValueError(_NO_TOKENS)
        return self._padded(given, padding, out)

    def _padded(
        self, rows: _core.Rows, padding: _core.Padding, out: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        groups = rows.groups
        shape = (len(rows) if groups is None else groups, rows.columns(padding))
        batch = _Batch(out)
        batch.add("input_ids", shape)
        if groups is not None:
            batch.add("position_ids", shape)
        elif self.attention_mask:
            batch.add("attention_mask", shape)
        if self.labels:
            batch.add("labels", shape)
        fill = rows.pad if groups is None else rows.pad_groups
        fill(padding, **batch.memory)
        return batch.tensors

    def _flattened(
        self, rows: _core.Rows, padding: _core.Padding, out: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        tokens, sequences, longest = rows.flat_shape(padding)
        if sequences == 0:
            raise ValueError(_NO_TOKENS)
        batch = _Batch(out)
        shape = (1, tokens)
        for name in ("input_ids", "position_ids", *(["labels"] if self.labels else [])):
            batch.add(name, shape)
        batch.add("cu_seq_lens_q", (sequences + 1,), torch.int32)
        batch.add("seq_idx", shape, torch.int32)
        batch.memory["cu_seqlens"] = batch.memory.pop("cu_seq_lens_q")
        rows.flatten(padding, **batch.memory)
        lengths, seq_idx = batch.tensors.pop("cu_seq_lens_q"), batch.tensors.pop("seq_idx")
        same_lengths = lengths if out is None else out.get("cu_seq_lens_k", lengths)
        if same_lengths is not lengths:
            same_lengths[...] = lengths
        return {
            **batch.tensors,
            "cu_seq_lens_q": lengths,
            "cu_seq_lens_k": same_lengths,
            "max_length_q": longest,
            "max_length_k": longest,
            "seq_idx": seq_idx,
        }


@overload
def collate(rows: None = None, **options: Unpack[_Options]) -> Collator: ...


@overload
def collate(
    rows: Iterable[Any], *, out: Mapping[str, Any] | None = None, **options: Unpack[_Options]
) -> dict[str, Any]: ...


def collate(
    rows: Iterable[Any] | None = None,
    *,
    pad_token_id: int = 0,
    padding_side: Literal["right", "left"] = "right",
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    labels: bool = True,
    attention_mask: bool = True,
    ignore_pad_token: bool = False,
    padding_free: bool = False,
    packing: int | None = None,
    truncation: Literal["keep_start", "keep_end"] | None = None,
    loss: str | Sequence[str] | None = None,
    out: Mapping[str, Any] | None = None,
) -> Collator | dict[str, Any]:
    """Makes one batch of int64 tensors out of rows of tokens. Without rows, a Collator for a DataLoader.

    A row is a CachedTokens, of which nothing is copied but into the batch; a mapping with "input_ids" and
    perhaps "attention_mask" and "labels"; or any 1-D sequence or array of integers. A row that does not fit is a
    ValueError, which names it; with truncation it is cut, and its labels, mask and spans with it. The rows are not
    needed any more when the batch is made.

    labels are the ids of what is learned and -100 elsewhere, in every layout. `loss` names what is learned: "all",
    "completion" (the spans of that name, or what follows the first scalars["prompt_length"] tokens), "assistant",
    "labels" (spans or an array), or other spans of the rows. Of several names all must agree, as in TRL.

    Padded, the default: input_ids, attention_mask (the row's; 0 where padded) and labels (the ids; -100 where
    padded), each [rows, tokens].

    With padding_free=True: all rows one after another, without padding, for attention that is told where
    sequences begin. input_ids, position_ids and labels, each [1, tokens]; cu_seq_lens_q and cu_seq_lens_k,
    max_length_q and max_length_k, and seq_idx, int32 all but the two lengths, which are ints. Labels of
    the first token of a sequence are -100. Rows without tokens leave no trace. With pad_to_multiple_of, each
    token of the padding is a sequence of its own.

    With packing=N, or when `rows` is a list of groups, which are lists of rows: several rows in each row of
    the batch. input_ids, position_ids, which begin anew with each row and are 0 where padded, and
    labels, each [packs, N] or [groups, tokens]; -100 labels the first token of each row, too. There is no
    attention_mask: models tell the rows apart by their positions, but only where they are given no mask.
    packing=N chooses the rows as pack() does, so their order is not that of `rows`. With padding_free=True,
    groups are flattened in their order. Masks of the rows themselves go into padded batches only.

    `out` is a mapping with a tensor or NumPy array for each name above, of the right shape and dtype,
    C-contiguous; these are filled and returned. In a worker of a DataLoader, new tensors are made in shared
    memory, so that they are sent without a copy.

    The options are described at Collator.
    """
    collator = Collator(
        pad_token_id=pad_token_id,
        padding_side=padding_side,
        max_length=max_length,
        pad_to_multiple_of=pad_to_multiple_of,
        labels=labels,
        attention_mask=attention_mask,
        ignore_pad_token=ignore_pad_token,
        padding_free=padding_free,
        packing=packing,
        truncation=truncation,
        loss=loss,
    )
    if rows is not None:
        return collator(rows, out=out)
    if out is not None:
        raise ValueError("out goes with rows")
    return collator


def pack(lengths: npt.ArrayLike, sequence_len: int) -> list[npt.NDArray[np.int64]]:
    """Which rows go together so that few batches of `sequence_len` tokens hold them all: best fit decreasing.

    Takes the length of each row and returns, for each pack, the places of its rows. The longest row comes
    first; each row goes where the least space is left that suffices. Rows of no tokens are left out. A row
    longer than sequence_len is a ValueError: it is neither split nor cut. The packs are those of TRL's
    pack_dataset(strategy="bfd"), in its order. A million rows take some tenths of a second, without the GIL.
    """
    rows, ends = pack_in_order(lengths, sequence_len)
    return [rows[begin:end] for begin, end in itertools.pairwise([0, *ends.tolist()])]


def pack_in_order(
    lengths: npt.ArrayLike, sequence_len: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The same as two arrays: the places of the rows, pack by pack, and where each pack ends in there."""
    if not 1 <= operator.index(sequence_len) < 2**63:
        raise ValueError(f"sequence_len is {sequence_len}; it must be at least 1")
    given = np.asarray(lengths)
    if given.ndim != 1:
        raise ValueError(f"lengths must be 1-D; its shape is {given.shape}")
    if given.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if given.dtype.kind not in "iu":
        raise ValueError(f"lengths must hold integers; its dtype is {given.dtype}")
    for index in (int(given.argmin()), int(given.argmax())):
        if not 0 <= given[index] <= _UINT32_MAX:
            raise ValueError(f"row {index} has a length of {given[index]}")
    return _core.pack(np.require(given, np.uint32, ["C", "A"]), sequence_len)


class _Batch:
    """The arrays of a batch, as their user has them and as NumPy has the same memory."""

    def __init__(self, out: Mapping[str, Any] | None) -> None:
        self._out = out
        self.tensors: dict[str, Any] = {}
        self.memory: dict[str, Any] = {}

    def add(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.int64) -> None:
        """The caller's array of that name, to be checked when it is filled, or a new tensor."""
        if self._out is not None:
            if name not in self._out:
                raise ValueError(f"out has no {name}")
            given = self._out[name]
            self.tensors[name] = given
            self.memory[name] = given.numpy() if isinstance(given, torch.Tensor) else given
        elif get_worker_info() is None or 0 in shape:
            # NumPy's memory: torch.empty takes 5 us for 1 MiB where this takes 1.5.
            self.memory[name] = np.empty(shape, np.int64 if dtype is torch.int64 else np.int32)
            self.tensors[name] = torch.from_numpy(self.memory[name])
        else:
            # What torch's own default_collate does in a worker.
            bytes_needed = math.prod(shape) * dtype.itemsize
            storage = torch.UntypedStorage._new_shared(bytes_needed)  # type: ignore[no-untyped-call]
            self.tensors[name] = torch.empty(0, dtype=dtype).set_(storage).view(shape)
            self.memory[name] = self.tensors[name].numpy()
