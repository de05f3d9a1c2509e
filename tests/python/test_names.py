"""The public names, used as they are documented. Other people's code depends on each word in here."""

from __future__ import annotations

import pathlib
import pickle
import re

import numpy as np
import tokcask
from tokcask import (
    CachedTokens,
    CacheKey,
    TokenizationStats,
    TokenizedCache,
    pretokenize_rows,
    section_id,
    tokenizer_sha256,
)


def test_every_name_of_the_contract(tmp_path: pathlib.Path) -> None:
    key = CacheKey(section_id="a1b2", tokenizer_sha="c3d4", sequence_len=2048)
    assert str(key) == "a1b2|c3d4|2048"
    other = CacheKey("other", "c3d4", 2048)

    cache = TokenizedCache.open(tmp_path / "store", max_bytes=10 * 1024**3, read_only=False)
    assert cache.get(key) is None
    cache.put(key, CachedTokens(np.array([1, 2, 3]), np.array([1, 1, 1])))
    cache.put_many([(other, CachedTokens(input_ids=[4, 5], attention_mask=[1, 1]))])
    tokens = cache.get(key)
    assert tokens is not None
    assert tokens.input_ids.tolist() == [1, 2, 3]
    assert tokens.attention_mask.tolist() == [1, 1, 1]
    assert [found is not None for found in cache.get_many([other, key, CacheKey("no", "no", 1)])] == [
        True,
        True,
        False,
    ]

    assert cache.root == tmp_path / "store"
    assert cache.entry_count == 2
    assert cache.hits == 3
    assert cache.misses == 2
    assert cache.hit_rate == 0.6
    assert cache.max_bytes == 10 * 1024**3
    cache.flush()
    assert cache.total_bytes > 0
    assert cache.file_bytes > 0
    cache.save_manifest(tokenizer_sha="c3d4")
    cache.save_manifest()
    report = cache.verify()
    assert (report.records, report.damaged, report.structure_ok) == (2, 0, True)
    stats = cache.stats()
    assert stats["entry_count"] == 2
    assert stats["run"]["hits"] == 3
    assert "last_run" in stats
    assert cache.prune(older_than_seconds=3600) == 0
    assert cache.clear() == 2
    cache.close()
    with TokenizedCache.open(tmp_path / "store", read_only=True) as again:
        assert again.entry_count == 0


def test_functions_of_the_contract(tmp_path: pathlib.Path, tokenizer: object) -> None:
    assert re.fullmatch("[0-9a-f]{64}", tokenizer_sha256(tokenizer))
    assert re.fullmatch("[0-9a-f]{32}", section_id("text"))
    assert section_id("text", kind="text") == section_id("text")
    assert section_id("text", kind="file") != section_id("text")
    rows, stats = pretokenize_rows([{"text": "some text"}], tokenizer=tokenizer, sequence_len=16, cache=None)
    assert {"text", "input_ids", "attention_mask"} == set(rows[0])
    assert isinstance(stats, TokenizationStats)
    assert stats.total_sections == 1
    assert stats.cache_hits == 0
    assert stats.cache_misses == 1
    assert stats.total_tokenize_seconds > 0
    assert stats.cache_bytes_after == 0


def test_batches_of_the_contract() -> None:
    from tokcask.torch import Collator, collate, pack

    rows = [CachedTokens([1, 2, 3]), CachedTokens([4])]
    assert set(collate(rows, pad_token_id=0)) == {"input_ids", "attention_mask", "labels"}
    assert "cu_seq_lens_q" in collate(rows, padding_free=True)
    assert collate(rows, packing=4)["input_ids"].tolist() == [[1, 2, 3, 4]]
    collator: Collator = collate(pad_token_id=7, padding_side="left", pad_to_multiple_of=8)
    assert collator(rows)["input_ids"].shape == (2, 8)
    assert [places.tolist() for places in pack([3, 1], sequence_len=4)] == [[0, 1]]


def test_dataset_of_the_contract(tmp_path: pathlib.Path) -> None:
    from tokcask.torch import TokenDataset

    keys = [CacheKey("a", "sha", 8), CacheKey("b", "sha", 8)]
    with TokenizedCache.open(tmp_path / "store") as cache:
        cache.put_many([(keys[0], CachedTokens([1, 2])), (keys[1], CachedTokens([3]))])
    dataset = TokenDataset(tmp_path / "store", keys)
    assert len(dataset) == 2
    assert dataset[1]["input_ids"].tolist() == [3]
    assert [row["input_ids"].tolist() for row in dataset.__getitems__([1, 0])] == [[3], [1, 2]]
    again = pickle.loads(pickle.dumps(dataset))
    assert again[0]["attention_mask"].tolist() == [1, 1]
    assert dataset.lengths.tolist() == [2, 1]
    assert "input_ids" in dataset.column_names


def test_section_id_is_the_documented_hash() -> None:
    import hashlib

    assert section_id("täxt", "file") == hashlib.sha256(b"file\0" + "täxt".encode()).hexdigest()[:32]


def test_all_names_can_be_imported() -> None:
    for name in tokcask.__all__:
        assert getattr(tokcask, name) is not None
        assert name in dir(tokcask)
