"""Entries of one sequence length that serve another, with real tokenizers, and misses that explain themselves."""

from __future__ import annotations

import logging
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import tokcask
import tokenizers
import transformers
from tokcask import CachedTokens, CacheKey, TokenizedCache, pretokenize_rows, tokenizer_sha256
from tokcask._identity import truncation_traits
from tokcask.torch import TokenDataset
from tokenizers import models, pre_tokenizers, processors, trainers

from conftest import texts_of

BOTH, LENGTH_ONLY, NOTHING = (True, True), (True, False), (False, False)


def backend_with(post_processor: Any) -> Any:
    backend = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["[UNK]", "[CLS]", "[SEP]", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(texts_of(random.Random(1), 50), trainer)
    if post_processor is not None:
        backend.post_processor = post_processor(backend)
    return backend


def template(single: str, *tokens: str) -> Any:
    return lambda backend: processors.TemplateProcessing(
        single=single, special_tokens=[(token, backend.token_to_id(token)) for token in tokens]
    )


def pair(backend: Any, token: str) -> tuple[str, int]:
    return token, backend.token_to_id(token)


PROCESSORS = {
    "none": (None, BOTH),
    "byte level": (lambda backend: processors.ByteLevel(), BOTH),
    "begins with a token": (template("<s> $A", "<s>"), BOTH),
    "ends with a token": (template("$A </s>", "</s>"), LENGTH_ONLY),
    "both": (template("[CLS] $A [SEP]", "[CLS]", "[SEP]"), LENGTH_ONLY),
    "bert": (lambda b: processors.BertProcessing(pair(b, "[SEP]"), pair(b, "[CLS]")), LENGTH_ONLY),
    "roberta": (lambda b: processors.RobertaProcessing(pair(b, "</s>"), pair(b, "<s>")), LENGTH_ONLY),
    "sequence": (
        lambda b: processors.Sequence([processors.ByteLevel(), template("<s> $A </s>", "<s>", "</s>")(b)]),
        LENGTH_ONLY,
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_at_many_lengths_are_what_the_tokenizer_returns(tmp_path: Path, name: str, side: str) -> None:
    post_processor, traits = PROCESSORS[name]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend_with(post_processor), truncation_side=side
    )
    expected_traits = traits if side == "right" else (traits[0], False)
    texts = texts_of(random.Random(7), 40)
    with TokenizedCache.open(tmp_path / "store") as cache:
        for position, length in enumerate((64, 16, 256, 8, 40, 1000, 5)):
            rows, stats = pretokenize_rows(
                [{"text": text} for text in texts], tokenizer=tokenizer, sequence_len=length, cache=cache
            )
            for text, row in zip(texts, rows, strict=True):
                fresh = tokenizer(text=text, truncation=True, padding=False, max_length=length)
                assert row["input_ids"].tolist() == fresh["input_ids"]
                assert row["attention_mask"].tolist() == fresh["attention_mask"]
            if position > 0 and expected_traits[0]:
                assert stats.cache_hits > 0 or length < 10
            if length in (16, 8) and expected_traits[1]:
                assert stats.cache_misses == 0  # 64 was there
        derived = cache.stats()["run"]["derived"]
        assert (derived > 0) == (expected_traits != NOTHING)


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_is_established(name: str) -> None:
    post_processor, traits = PROCESSORS[name]
    backend = backend_with(post_processor)

    backend.enable_truncation(7, stride=2)
    backend.enable_padding(length=9)
    before = backend.truncation, backend.padding
    assert truncation_traits(backend, "right") == traits
    assert truncation_traits(backend, "left") == (traits[0], False)
    assert (backend.truncation, backend.padding) == before
    assert truncation_traits(object(), "right") == NOTHING


class Lying:
    """A backend that does not do what its description says."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode(self, text: str) -> Any:
        class Encoding:
            ids = self._backend.encode(text).ids[1:]

        return Encoding


def test_what_is_tried_out_must_bear_it_out() -> None:
    assert truncation_traits(Lying(backend_with(None)), "right") == NOTHING


def test_a_real_tokenizer_cuts_to_a_prefix(large_backend: Any) -> None:
    at_length, to_prefix = truncation_traits(large_backend, "right")
    assert at_length
    description = large_backend.post_processor
    assert to_prefix == (description is None or b"ByteLevel" in description.__getstate__())


def test_switched_off_and_read_only(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": "hello world " * n} for n in range(1, 20)]
    with TokenizedCache.open(tmp_path / "s") as cache:
        pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=512, cache=cache)
    with TokenizedCache.open(tmp_path / "s", derive_lengths=False) as cache:
        _, stats = pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=300, cache=cache)
        assert stats.cache_hits == 0
    with TokenizedCache.open(tmp_path / "s", read_only=True) as cache:
        _, stats = pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=400, cache=cache)
        assert stats.cache_misses == 0
    sha = tokenizer_sha256(tokenizer)
    with TokenizedCache.open(tmp_path / "s") as cache:
        keys = [CacheKey(key.section_id, sha, 450) for key in cache.keys(sequence_len=512)]
        assert len(keys) == len(rows)
        dataset = TokenDataset(tmp_path / "s", keys)
        full = TokenDataset(tmp_path / "s", cache.keys(sequence_len=512))
        for copy in (dataset, pickle.loads(pickle.dumps(dataset))):
            for short, whole in zip(copy, full, strict=True):
                assert short["input_ids"].tolist() == whole["input_ids"].tolist()
        with pytest.raises(tokcask.MissingEntryError, match="19 of 19 keys have no entry"):
            TokenDataset(tmp_path / "s", keys, derive_lengths=False)


def test_a_miss_explains_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TokenizedCache.open(tmp_path / "s") as cache:
        for i in range(30):
            cache.put(CacheKey(f"{i:016x}", "a" * 64, 128), CachedTokens([1, 2, 3]))
    with TokenizedCache.open(tmp_path / "s") as cache:
        assert cache.get_many([CacheKey(f"{i:016x}", "b" * 64, 128) for i in range(40)]) == [None] * 40
        assert cache.miss_reasons()["other tokenizer"] == 30
        assert cache.miss_reasons()["never stored"] == 10
        told = cache.explain(CacheKey("0" * 16, "b" * 64, 128))
        assert isinstance(told, tokcask.Explanation)
        assert not told.found
        assert told.reason == "other tokenizer"
        assert "30 entries" in str(told) and "aaaaaaaaaaaa" in told.text
        assert [entry["key"] for entry in told.related] == [CacheKey("0" * 16, "a" * 64, 128)]
        found = cache.explain(CacheKey("0" * 16, "a" * 64, 128))
        assert found.found and found.reason is None and found.when_ns > 0
        with caplog.at_level(logging.INFO, logger="tokcask"):
            summary = cache.miss_summary()
            cache.close()
    assert summary.startswith(f"{tmp_path / 's'}: of 40 misses, 30 are stored under tokenizer aaaaaaaaaaaa")
    assert [record.getMessage() for record in caplog.records] == [summary]
