"""For training with PyTorch: the store as a dataset, and its rows as batches of int64 tensors.

    from tokcask.torch import Collator, TokenDataset
    dataset = TokenDataset("tokens", keys)
    loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=4, collate_fn=Collator(pad_token_id=0))

Importing it imports torch, which tokcask itself does not need.
"""

from __future__ import annotations

from tokcask.torch._collate import Collator, collate, pack
from tokcask.torch._dataset import PackedDataset, TokenDataset

__all__ = ["Collator", "PackedDataset", "TokenDataset", "collate", "pack"]
