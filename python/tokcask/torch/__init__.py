"""Feeding a training loop of PyTorch from a store."""

from __future__ import annotations

from tokcask.torch._loading import ResumableSampler, TokenDataLoader, TokenIterableDataset

__all__ = ["ResumableSampler", "TokenDataLoader", "TokenIterableDataset"]
