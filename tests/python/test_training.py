"""A model learns from a store what it learns from Python lists, to the bit."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import tokcask
import torch
import torch.utils.data
from tokcask import CachedTokens, CacheKey, TokenizedCache
from tokcask.torch import Collator, TokenDataLoader, TokenDataset

STEPS = 50
PAD = 0


def corpus(tokenizer: Any) -> list[list[int]]:
    """Every line of this folder's files, tokenized."""
    lines = [
        line
        for file in sorted(pathlib.Path(__file__).parent.glob("*.py"))
        for line in file.read_text().split("\n")
    ]
    return [ids for line in lines if (ids := tokenizer(line, truncation=True, max_length=48)["input_ids"])][
        :1200
    ]


def losses(batches: Iterable[dict[str, torch.Tensor]]) -> list[float]:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    found = []
    for _, batch in zip(range(STEPS), batches):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss))
    assert len(found) == STEPS
    return found


def pad_lists(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """What a user without tokcask would write."""
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD
    )
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def shuffled(dataset: Any, collate: Callable[[Any], Any], workers: int) -> Any:
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=16,
        shuffle=True,
        generator=torch.Generator().manual_seed(17),
        num_workers=workers,
        collate_fn=collate,
        timeout=120 if workers else 0,
    )


@pytest.fixture
def stored(tmp_path: pathlib.Path, tokenizer: Any) -> tuple[list[list[int]], TokenDataset]:
    rows = corpus(tokenizer)
    sha = tokcask.tokenizer_sha256(tokenizer)
    keys = [CacheKey(tokcask.section_id(f"{number} {row}"), sha, 48) for number, row in enumerate(rows)]
    with TokenizedCache.open(tmp_path / "store") as cache:
        cache.put_many(zip(keys, map(CachedTokens, rows)))
    return rows, TokenDataset(tmp_path / "store", keys)


def test_the_same_losses_as_from_lists(stored: tuple[list[list[int]], TokenDataset]) -> None:
    rows, dataset = stored
    from_lists = losses(shuffled(rows, pad_lists, 0))
    assert from_lists[-1] < from_lists[0]  # it learns
    from_store = losses(shuffled(dataset, Collator(pad_token_id=PAD), 2))
    assert from_store == from_lists
    assert losses(shuffled(rows[::-1], pad_lists, 0)) != from_lists  # other rows would be seen


def test_the_same_losses_after_a_resume(stored: tuple[list[list[int]], TokenDataset]) -> None:
    _, dataset = stored

    def loader(workers: int) -> Any:
        return TokenDataLoader(
            dataset,
            batch_size=16,
            shuffle=True,
            seed=3,
            num_workers=workers,
            collate_fn=Collator(pad_token_id=PAD),
        )

    whole = losses(loader(0))
    interrupted = loader(2)
    first = [batch for _, batch in zip(range(23), interrupted)]
    state = interrupted.state_dict()
    resumed = loader(1)
    resumed.load_state_dict(state)
    assert losses([*first, *resumed]) == whole
    assert np.isfinite(whole).all()
