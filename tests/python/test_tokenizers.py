"""Tokenizers of other libraries: known by content, and stored as what they return."""

from __future__ import annotations

import io
import pathlib
import re
from random import Random
from typing import Any

import mistral_common
import numpy as np
import pytest
import sentencepiece
import tiktoken
import tokcask
from tokcask import TokenizedCache, pretokenize_rows, tokenizer_sha256

from conftest import texts_of

LENGTH = 24
PATTERN = r"\w+|[^\w\s]+|\s+"
MISTRAL = pathlib.Path(mistral_common.__file__).parent / "data"


def ranks(order: int = 1) -> dict[bytes, int]:
    tokens = [bytes([byte]) for byte in range(256)][::order]
    return {token: rank for rank, token in enumerate([*tokens, b"th", b"the", b"qu"])}


def encoding(**changes: Any) -> Any:
    made = {"pat_str": PATTERN, "mergeable_ranks": ranks(), "special_tokens": {"<end>": 300}, **changes}
    return tiktoken.Encoding(made.pop("name", "mine"), **made)


@pytest.fixture(scope="module")
def model() -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts_of(Random(1), 300)),
        model_writer=written,
        vocab_size=150,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return written.getvalue()


def processor(model: bytes, **options: Any) -> Any:
    return sentencepiece.SentencePieceProcessor(model_proto=model, **options)


def slow(file: pathlib.Path, **options: Any) -> Any:
    """A transformers tokenizer without a backend of the library tokenizers."""
    from transformers import BertGenerationTokenizer

    return BertGenerationTokenizer(vocab_file=str(file), **options)


def check(tmp_path: pathlib.Path, tokenizer: Any, expected: list[list[int]], texts: list[str]) -> None:
    rows = [{"text": text} for text in texts]
    with TokenizedCache.open(tmp_path / "store") as cache:
        for misses in (len(rows), 0):
            result, stats = pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=LENGTH, cache=cache)
            assert stats.cache_misses == misses
            assert [row["input_ids"].tolist() for row in result] == expected


def test_tiktoken(tmp_path: pathlib.Path) -> None:
    texts = [*texts_of(Random(2), 30), "text <end>"]
    used = encoding()
    check(tmp_path, used, [used.encode_ordinary(text)[:LENGTH] for text in texts], texts)


def test_tiktoken_is_known_by_content() -> None:
    sha = tokenizer_sha256(encoding())
    assert re.fullmatch("[0-9a-f]{64}", sha)
    assert tokenizer_sha256(encoding(name="another")) == sha
    others = [
        encoding(pat_str=r"\w+|[^\w]"),
        encoding(mergeable_ranks=ranks(-1)),
        encoding(special_tokens={"<other>": 300}),
        encoding(special_tokens={"<end>": 301}),
    ]
    assert len({sha, *map(tokenizer_sha256, others)}) == 5


def test_sentencepiece(tmp_path: pathlib.Path, model: bytes) -> None:
    texts = texts_of(Random(3), 30)
    used = processor(model, add_bos=True)
    check(tmp_path, used, [used.encode(text)[:LENGTH] for text in texts], texts)


def test_sentencepiece_is_known_by_content(model: bytes) -> None:
    sha = tokenizer_sha256(processor(model))
    assert tokenizer_sha256(processor(model, num_threads=1)) == sha
    others = [{"add_bos": True}, {"add_eos": True}, {"reverse": True}]
    shas = {tokenizer_sha256(processor(model, **options)) for options in others}
    shas.add(tokenizer_sha256(processor((MISTRAL / "tokenizer.model.v1").read_bytes())))
    assert len({sha, *shas}) == 5
    with pytest.raises(ValueError, match=r"cannot be identified: it samples.*; pass a"):
        tokenizer_sha256(processor(model, enable_sampling=True, alpha=0.1, nbest_size=-1))


def test_a_slow_tokenizer_of_transformers(tmp_path: pathlib.Path, model: bytes) -> None:
    file = tmp_path / "spiece.model"
    file.write_bytes(model)
    used = slow(file)
    assert not used.is_fast
    texts = texts_of(Random(4), 10)
    eos = used.eos_token
    expected = [
        used(text + eos, truncation=True, padding=False, max_length=LENGTH)["input_ids"] for text in texts
    ]
    check(tmp_path, used, expected, texts)
    sha = tokenizer_sha256(used)
    moved = tmp_path / "moved.model"
    moved.write_bytes(model)
    assert tokenizer_sha256(slow(moved)) == sha
    other = tmp_path / "other.model"
    other.write_bytes((MISTRAL / "tokenizer.model.v1").read_bytes())
    assert tokenizer_sha256(slow(other)) != sha
    used.padding_side = "left"
    assert tokenizer_sha256(used) == sha
    used.truncation_side = "left"
    assert tokenizer_sha256(used) != sha
    used.truncation_side = "right"
    used.add_tokens(["naïve"])
    assert tokenizer_sha256(used) != sha


@pytest.mark.parametrize("name", ["tekken_240718.json", "mistral_instruct_tokenizer_240323.model.v3"])
def test_mistral_common(tmp_path: pathlib.Path, name: str) -> None:
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    whole = MistralTokenizer.from_file(str(MISTRAL / name))
    inner = whole.instruct_tokenizer.tokenizer
    texts = texts_of(Random(5), 10)
    expected = [inner.encode(text, bos=True, eos=False)[:LENGTH] for text in texts]
    check(tmp_path, whole, expected, texts)
    sha = tokenizer_sha256(whole)
    assert tokenizer_sha256(inner) == sha
    v1 = MistralTokenizer.from_file(str(MISTRAL / "tokenizer.model.v1"))
    assert tokenizer_sha256(v1) != sha


def test_mistral_common_in_transformers(tmp_path: pathlib.Path) -> None:
    from transformers.tokenization_mistral_common import MistralCommonBackend

    file = MISTRAL / "mistral_instruct_tokenizer_240323.model.v3"
    used = MistralCommonBackend(str(file), mode="finetuning")
    copy = tmp_path / file.name
    copy.write_bytes(file.read_bytes())
    again = MistralCommonBackend(str(copy), mode="finetuning")
    assert tokenizer_sha256(used) == tokenizer_sha256(again)
    assert tokenizer_sha256(used) != tokenizer_sha256(MistralCommonBackend(str(file)))
    row = {"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes."}]}
    with TokenizedCache.open(tmp_path / "store") as cache:
        for _ in range(2):
            rows, _ = pretokenize_rows([row], tokenizer=used, sequence_len=LENGTH, cache=cache)
            expected = used.apply_chat_template(row["messages"], tokenize=True, return_dict=True)
            assert rows[0]["input_ids"].tolist() == expected["input_ids"][:LENGTH]


class Mine:
    """A BatchTokenizer in full."""

    sha256 = "0f" * 32

    def __init__(self, results: Any = None) -> None:
        self._results = results

    def encode_batch(self, texts: Any, max_length: int) -> Any:
        if self._results is not None:
            return self._results
        return [np.frombuffer(text.encode(), np.uint8)[:max_length] for text in texts]


class Encoded:
    def __init__(self, ids: list[int]) -> None:
        self.ids = ids


def test_a_tokenizer_of_ones_own(tmp_path: pathlib.Path) -> None:
    assert isinstance(Mine(), tokcask.BatchTokenizer)
    assert tokenizer_sha256(Mine()) == Mine.sha256
    texts = texts_of(Random(6), 10)
    check(tmp_path, Mine(), [list(text.encode())[:LENGTH] for text in texts], texts)
    rows, _ = pretokenize_rows([{"text": "a"}], tokenizer=Mine([Encoded([7, 8])]), sequence_len=LENGTH)
    assert rows[0]["input_ids"].tolist() == [7, 8]


@pytest.mark.parametrize("results", [[], [[1], [2]], [["a"]], [[[1], [2]]], [[1.5]], [[2**40]]])
def test_refuses_what_is_no_result(results: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        pretokenize_rows([{"text": "a"}], tokenizer=Mine(results), sequence_len=LENGTH)


def test_refuses_a_bad_identity() -> None:
    for sha in ("", "abc", "AB" * 32, "zz" * 32):
        bad = Mine()
        bad.sha256 = sha
        with pytest.raises(ValueError, match="64 lower-case"):
            tokenizer_sha256(bad)


def test_rows_with_messages_need_a_template() -> None:
    with pytest.raises(TypeError, match="Mine has no apply_chat_template"):
        pretokenize_rows(
            [{"messages": [{"role": "user", "content": "a"}]}], tokenizer=Mine(), sequence_len=LENGTH
        )


def test_refuses_what_cannot_tokenize() -> None:
    with pytest.raises(TypeError, match=r"a int cannot be called.*tokcask\.BatchTokenizer"):
        pretokenize_rows([{"text": "a"}], tokenizer=3, sequence_len=LENGTH)
