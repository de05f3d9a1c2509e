"""pretokenize_rows over a real tokenizer."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import tokcask
from tokcask import (
    CacheKey,
    TokenizationStats,
    TokenizedCache,
    pretokenize_rows,
    section_id,
    tokenizer_sha256,
)

from conftest import CHAT_TEMPLATE, EOS

LENGTH = 32


class Counting:
    """A tokenizer that remembers what it was asked."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []
        self.calls = 0
        self.conversations: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *, text: Any, truncation: bool, padding: bool, max_length: int) -> Any:
        self.calls += 1
        self.texts += [text] if isinstance(text, str) else text
        return self._tokenizer(text=text, truncation=truncation, padding=padding, max_length=max_length)

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        self.conversations.append(options)
        return self._tokenizer.apply_chat_template(messages, **options)


def text_rows(count: int) -> list[dict[str, Any]]:
    return [{"text": f"this is text number {n}", "n": n} for n in range(count)]


def conversation(question: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes."}]}


def ids_of(rows: Iterable[dict[str, Any]]) -> list[list[int]]:
    return [row["input_ids"].tolist() for row in rows]


def run(rows: Any, tokenizer: Any, cache: TokenizedCache | None = None, length: int = LENGTH) -> Any:
    return pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=length, cache=cache)


@pytest.mark.parametrize("name", ["tokenizer", "large_tokenizer"])
def test_returns_what_the_tokenizer_returns(
    cache: TokenizedCache, name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    rows = [
        {"text": "hello world, " * 30},
        {"text": "short"},
        conversation("Is it?"),
        conversation("long " * 100),
    ]
    expected = [
        tokenizer(text=row["text"] + EOS, truncation=True, padding=False, max_length=LENGTH)["input_ids"]
        if "text" in row
        else tokenizer.apply_chat_template(
            row["messages"], tokenize=True, return_dict=True, truncation=True, max_length=LENGTH
        )["input_ids"]
        for row in rows
    ]
    assert [len(ids) for ids in expected].count(LENGTH) == 2
    for store in (None, cache, cache):
        result, _ = run(rows, tokenizer, store)
        assert ids_of(result) == expected
        for original, row in zip(rows, result, strict=True):
            assert {**original, "input_ids": row["input_ids"], "attention_mask": row["attention_mask"]} == row
            for name in ("input_ids", "attention_mask"):
                assert row[name].dtype == np.int32
                assert row[name].ndim == 1
                assert not row[name].flags.writeable
            assert row["attention_mask"].tolist() == [1] * len(row["input_ids"])


def test_rows_are_not_changed(tokenizer: Any) -> None:
    rows = [{"text": "a"}, conversation("b")]
    before = [dict(row) for row in rows]
    run(rows, tokenizer)
    assert rows == before


def test_second_run_is_all_hits(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = [*text_rows(50), conversation("one"), conversation("two")]
    with TokenizedCache.open(tmp_path / "store") as cache:
        first, stats = run(rows, Counting(tokenizer), cache)
        assert (stats.total_sections, stats.cache_hits, stats.cache_misses) == (52, 0, 52)
        assert stats.total_tokenize_seconds > 0
        assert stats.cache_bytes_after == cache.total_bytes > 0
        assert cache.stats()["run"]["tokenize_seconds"] == pytest.approx(stats.total_tokenize_seconds)
        assert cache.stats()["pending"] == 0
    counting = Counting(tokenizer)
    with TokenizedCache.open(tmp_path / "store") as cache:
        second, stats = run(rows, counting, cache)
        assert (stats.total_sections, stats.cache_hits, stats.cache_misses) == (52, 52, 0)
        assert stats.total_tokenize_seconds == 0
        assert (cache.hits, cache.misses) == (52, 0)
    assert counting.texts == []
    assert all(not options["tokenize"] for options in counting.conversations)  # rendered, for their keys
    assert ids_of(second) == ids_of(first)


def test_an_edited_row_is_one_miss(cache: TokenizedCache, tokenizer: Any) -> None:
    rows = text_rows(20)
    run(rows, Counting(tokenizer), cache)
    rows[7]["text"] += ", edited"
    counting = Counting(tokenizer)
    result, stats = run(rows, counting, cache)
    assert (stats.cache_hits, stats.cache_misses) == (19, 1)
    assert counting.texts == [rows[7]["text"] + EOS]
    assert ids_of(result) == ids_of(run(rows, tokenizer)[0])


def test_any_change_is_a_miss(tmp_path: Path, tokenizer: Any) -> None:
    # With exact keys: otherwise an entry of another length may serve, see test_derive.py.
    cache = TokenizedCache.open(tmp_path / "store", derive_lengths=False)
    rows = [{"text": "text"}, conversation("question")]

    def misses(rows: Any = rows, length: int = LENGTH) -> int:
        result, stats = run(rows, tokenizer, cache, length)
        assert ids_of(result) == ids_of(run(rows, tokenizer, None, length)[0])
        return int(stats.cache_misses)

    assert (misses(), misses()) == (2, 0)
    assert (misses(length=LENGTH + 1), misses()) == (2, 0)
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert misses([{**rows[1], "tools": tools}]) == 0  # which this template does not show
    tokenizer.chat_template = CHAT_TEMPLATE.replace("<", "[")
    assert (misses(), misses()) == (1, 0)  # no template touches a text
    tokenizer.chat_template = CHAT_TEMPLATE
    assert misses() == 0
    tokenizer.backend_tokenizer.add_tokens(["question"])
    assert (misses(), misses()) == (2, 0)
    tokenizer.eos_token = "!"
    assert (misses(), misses()) == (2, 0)


def test_text_and_messages_never_share_a_key(cache: TokenizedCache, tokenizer: Any) -> None:
    message = conversation("question")
    forms = [message["messages"], [message["messages"], None]]
    texts = [json.dumps(form, separators=(",", ":")) for form in forms]
    tokenizer.eos_token = None  # or the texts would differ by it
    rows = [message, *({"text": text} for text in texts)]
    _, stats = run(rows, tokenizer, cache)
    assert stats.cache_misses == 3
    result, stats = run(rows, tokenizer, cache)
    assert stats.cache_hits == 3
    assert ids_of(result) == [ids for row in rows for ids in ids_of(run([row], tokenizer)[0])]


def test_a_section_id_is_taken_from_the_field_that_is_named(cache: TokenizedCache, tokenizer: Any) -> None:
    rows = [{"text": "text", "name": "0123456789abcdef"}, {**conversation("question"), "name": "other"}]
    options: dict[str, Any] = {"tokenizer": tokenizer, "sequence_len": LENGTH, "cache": cache}
    result, _ = pretokenize_rows(rows, section_field="name", **options)
    for row, section in zip(result, ("0123456789abcdef", "other"), strict=True):
        tokens = cache.get(CacheKey(section, tokenizer_sha256(tokenizer), LENGTH))
        assert tokens is not None
        assert tokens.input_ids.tolist() == row["input_ids"].tolist()
    for bad, message in (({"text": "a", "name": "a|b"}, "section_id"), ({"text": "a"}, "has no name")):
        with pytest.raises(ValueError, match=f"row 0: .*{message}"):
            pretokenize_rows([bad], section_field="name", **options)


def test_a_text_without_a_name_has_the_documented_key(cache: TokenizedCache, tokenizer: Any) -> None:
    """What is tokenized is the text with its end; so it is also what the key is made of."""
    run([{"text": "text"}], tokenizer, cache)
    key = CacheKey(section_id("text" + EOS), tokenizer_sha256(tokenizer), LENGTH)
    tokens = cache.get(key)
    assert tokens is not None
    assert tokens.input_ids.tolist() == tokenizer("text" + EOS)["input_ids"]


def test_the_end_is_appended_once(tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids(EOS)
    (once, twice, only), _ = run([{"text": "a"}, {"text": "a" + EOS}, {"text": EOS}], tokenizer)
    assert once["input_ids"].tolist() == twice["input_ids"].tolist()
    assert once["input_ids"].tolist().count(end) == 1
    assert only["input_ids"].tolist() == [end]


def test_empty_text(cache: TokenizedCache, tokenizer: Any) -> None:
    (row,), _ = run([{"text": ""}], tokenizer, cache)
    assert row["input_ids"].tolist() == [tokenizer.convert_tokens_to_ids(EOS)]
    tokenizer.eos_token = None
    for expected in ((0, 1), (1, 0)):
        (row,), stats = run([{"text": ""}], tokenizer, cache)
        assert row["input_ids"].shape == row["attention_mask"].shape == (0,)
        assert (stats.cache_hits, stats.cache_misses) == expected


def test_no_rows(cache: TokenizedCache, tokenizer: Any) -> None:
    assert run([], tokenizer, cache) == ([], TokenizationStats(0, 0, 0, 0.0, cache.total_bytes))


def test_preference_rows_pass_through(cache: TokenizedCache, tokenizer: Any) -> None:
    preference = {"prompt": "p", "chosen": "c", "rejected": "r", "text": "also text"}
    incomplete = {**preference, "rejected": None}
    result, stats = run([preference, incomplete], tokenizer, cache)
    assert result[0] == {"prompt": "p", "chosen": "c", "rejected": "r", "text": "also text"}
    assert "input_ids" in result[1]
    assert stats.total_sections == 1


def test_tools_reach_their_template_only(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages[0]['content'] }}{{ tools[0]['name'] if tools }}"
    plain = {"messages": [{"role": "user", "content": "q"}]}
    result, _ = run([{**plain, "tools": [{"name": "tool"}]}, plain], tokenizer)
    assert ids_of(result) == [tokenizer("qtool")["input_ids"], tokenizer("q")["input_ids"]]


def test_messages_come_before_text(tokenizer: Any) -> None:
    row = {**conversation("q"), "text": "text"}
    assert ids_of(run([row], tokenizer)[0]) == ids_of(run([conversation("q")], tokenizer)[0])
    assert "input_ids" in run([{"messages": None, "text": "text"}], tokenizer)[0][0]


def test_equal_rows_are_tokenized_once(cache: TokenizedCache, tokenizer: Any) -> None:
    rows = [{"text": "same", "n": n} for n in range(5)] + [conversation("same")] * 3
    for store in (None, cache):
        counting = Counting(tokenizer)
        result, stats = run(rows, counting, store)
        assert counting.texts == ["same" + EOS]
        assert sum(options["tokenize"] for options in counting.conversations) == 1
        assert (stats.total_sections, stats.cache_misses) == (8, 8)
        assert [row.get("n") for row in result] == [0, 1, 2, 3, 4, None, None, None]
        assert len(set(map(tuple, ids_of(result)))) == 2
    assert cache.entry_count == 2


def test_looks_up_once_and_stores_in_batches(
    tmp_path: pathlib.Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class Recording:
        def __init__(self, cache: TokenizedCache) -> None:
            self._cache = cache

        def __getattr__(self, name: str) -> Any:
            return getattr(self._cache, name)

        def get_many(self, keys: Any) -> Any:
            calls.append(("get_many", len(keys)))
            return self._cache.get_many(keys)

        def put_many(self, entries: Any) -> None:
            calls.append(("put_many", len(entries)))
            self._cache.put_many(entries)

    counting = Counting(tokenizer)
    with TokenizedCache.open(tmp_path / "store") as cache:
        recording: Any = Recording(cache)
        run(text_rows(2300), counting, recording)
    assert calls[0] == ("get_many", 2300)
    assert [name for name, _ in calls[1:]] == ["put_many"] * 3
    assert all(990 <= count <= 1000 for _, count in calls[1:3])  # whole slots of sections
    assert sum(count for _, count in calls[1:]) == 2300
    assert counting.calls == 2300


def test_a_failure_keeps_what_was_stored(cache: TokenizedCache, tokenizer: Any) -> None:
    class Failing(Counting):
        def __call__(self, **options: Any) -> Any:
            if self.calls == 1200:
                raise RuntimeError("tokenizer")
            return super().__call__(**options)

    with pytest.raises(RuntimeError, match="tokenizer"):
        run(text_rows(1500), Failing(tokenizer), cache)
    _, stats = run(text_rows(1500), Failing(tokenizer), cache)
    assert 990 <= stats.cache_hits <= 1000
    assert stats.cache_hits + stats.cache_misses == 1500


def test_an_object_that_behaves_like_a_tokenizer(cache: TokenizedCache) -> None:
    class Letters:
        """One call per text; no mask, no truncation."""

        eos_token = "."

        class backend_tokenizer:
            @staticmethod
            def to_str() -> str:
                return '{"model": {"vocab": {"a": 0}}}'

        def __call__(self, *, text: str, truncation: bool, padding: bool, max_length: int) -> dict[str, Any]:
            assert (truncation, padding, max_length) == (True, False, 4)
            return {"input_ids": [ord(letter) for letter in text]}

    for _ in range(2):
        result, _ = run([{"text": "abc"}, {"text": "abcdefgh"}], Letters(), cache, 4)
        assert ids_of(result) == [[97, 98, 99, 46], [97, 98, 99, 100]]
        assert [row["attention_mask"].tolist() for row in result] == [[1] * 4, [1] * 4]


def test_read_only_cache(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    with TokenizedCache.open(tmp_path / "store") as cache:
        run(text_rows(3), tokenizer, cache)
    with TokenizedCache.open(tmp_path / "store", read_only=True) as reader:
        result, stats = run(text_rows(5), tokenizer, reader)
        assert (stats.cache_hits, stats.cache_misses) == (3, 2)
        assert ids_of(result) == ids_of(run(text_rows(5), tokenizer)[0])
        assert reader.entry_count == 3


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({}, ValueError, "row 1: it has neither messages nor text"),
        ({"text": None, "other": 1}, ValueError, r"neither.*\['other', 'text'\]"),
        ({"input_ids": [1, 2]}, ValueError, "neither"),
        ({"prompt": "p", "chosen": "c"}, ValueError, "neither"),
        ({"text": 3}, TypeError, "row 1: text must be a str, not int"),
        ({"text": "\ud800"}, ValueError, "row 1:.*surrogates"),
        ({"messages": []}, ValueError, "row 1: messages"),
        ({"messages": "hello"}, ValueError, "row 1: messages"),
        ({"messages": [{"content": object()}]}, TypeError, "row 1: messages.*JSON"),
        ("text", TypeError, "row 1 is a str, not a dict"),
    ],
)
def test_refuses_a_bad_row(
    cache: TokenizedCache, tokenizer: Any, row: Any, error: type[Exception], message: str
) -> None:
    for store in (None, cache):
        with pytest.raises(error, match=message):
            run([{"text": "good"}, row], tokenizer, store)
    assert cache.entry_count == 0


@pytest.mark.parametrize(
    ("length", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (2**31, ValueError),
        (True, TypeError),
        (2.0, TypeError),
        (None, TypeError),
    ],
)
def test_refuses_a_bad_length(tokenizer: Any, length: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="sequence_len"):
        run([{"text": "text"}], tokenizer, None, length)


def test_refuses_a_tokenizer_that_cannot_be_called(large_backend: Any) -> None:
    with pytest.raises(TypeError, match=r"PreTrainedTokenizerFast\(tokenizer_object=\.\.\.\)"):
        run([{"text": "text"}], large_backend)


def test_stats_are_frozen() -> None:
    stats: Any = tokcask.TokenizationStats(1, 0, 1, 0.5, 100)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.cache_hits = 1
