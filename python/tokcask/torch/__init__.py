"""For training with PyTorch: the store as a dataset, and its rows as batches of int64 tensors.

    from tokcask.torch import Collator, TokenDataLoader, TokenDataset

    dataset = TokenDataset("tokens", keys)
    loader = TokenDataLoader(dataset, 64, shuffle=True, num_workers=4, collate_fn=Collator(pad_token_id=0))
    for batch in loader:
        ...

TokenDataset   the entries of a list of keys, by index
collate        rows of tokens as one batch of int64 tensors: padded, flattened or packed. Collator is the same
               with its options settled
TokenDataLoader, ResumableSampler, TokenIterableDataset
               an order that can be resumed in the middle of an epoch
pack, PackedDataset
               which rows go together in few rows of a given length

torch's own DataLoader takes a TokenDataset too, and other libraries' collators take its rows. Importing this
module imports torch, which tokcask itself does not need.
"""

from __future__ import annotations

from tokcask.torch._collate import Collator, collate, pack
from tokcask.torch._dataset import PackedDataset, TokenDataset
from tokcask.torch._loading import ResumableSampler, TokenDataLoader, TokenIterableDataset

__all__ = [
    "Collator",
    "PackedDataset",
    "ResumableSampler",
    "TokenDataLoader",
    "TokenDataset",
    "TokenIterableDataset",
    "collate",
    "pack",
]
