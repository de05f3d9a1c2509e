"""For training with PyTorch: batches of int64 tensors out of rows of tokens.

Importing it imports torch, which tokcask itself does not need.
"""

from __future__ import annotations

from tokcask.torch._collate import Collator, collate, pack

__all__ = ["Collator", "collate", "pack"]
