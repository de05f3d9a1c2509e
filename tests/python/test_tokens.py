"""Arrays in and out: dtypes, checks, and that nothing is copied on the way out."""

from __future__ import annotations

import collections.abc
import copy
import gc
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest
from tokcask import CachedTokens, TokenizedCache

from conftest import key


def stored(cache: TokenizedCache, ids: Any, mask: Any = None) -> CachedTokens:
    cache.put(key("k"), CachedTokens(ids, mask))
    tokens = cache.get(key("k"))
    assert tokens is not None
    return tokens


@pytest.mark.parametrize("code", "bhilqBHILQ")
def test_takes_every_integer_dtype(cache: TokenizedCache, code: str) -> None:
    tokens = stored(cache, np.array([0, 5, 127], code), np.array([1, 0, 1], code))
    for array, expected in ((tokens.input_ids, [0, 5, 127]), (tokens.attention_mask, [1, 0, 1])):
        assert array.dtype == np.int32
        assert array.tolist() == expected


@pytest.mark.parametrize(
    "ids",
    [
        [3, 1, 2],
        (3, 1, 2),
        range(5),
        np.arange(10)[::2],
        np.arange(6, dtype=np.int32)[::-1],
        np.arange(5).astype(">i4"),
        np.frombuffer(b"\0" + np.arange(5, dtype=np.int32).tobytes(), np.int32, offset=1),
        np.array([-(2**31), 2**31 - 1]),
    ],
    ids=["list", "tuple", "range", "strided", "reversed", "big-endian", "unaligned", "extremes"],
)
def test_takes_every_layout(cache: TokenizedCache, ids: Any) -> None:
    assert stored(cache, ids).input_ids.tolist() == list(ids)


@pytest.mark.parametrize("ids", [[], np.zeros(0, np.int32), np.zeros(0)])
def test_no_tokens_are_legal(cache: TokenizedCache, ids: Any) -> None:
    for mask in (None, []):
        tokens = stored(cache, ids, mask)
        assert tokens.input_ids.shape == tokens.attention_mask.shape == (0,)
        assert tokens.input_ids.dtype == tokens.attention_mask.dtype == np.int32
    assert cache.entry_count == 1


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([2**31], None, "input_ids holds 2147483648.*int32"),
        ([-(2**31) - 1], None, "input_ids holds -2147483649.*int32"),
        (np.array([2**63], np.uint64), None, "does not fit"),
        ([2**70], None, "input_ids must hold integers"),
        ([1.0], None, "input_ids must hold integers.*float64"),
        (np.array([1.0], np.float32), None, "float32"),
        ([True], None, "bool"),
        (np.zeros((2, 2), np.int32), None, r"input_ids must be 1-D.*\(2, 2\)"),
        (np.zeros((1, 3), np.int64), None, "1-D"),
        (5, None, "1-D"),
        ("abc", None, "1-D"),
        ([1, 2], [1], "attention_mask has 1 elements, but input_ids has 2"),
        ([], [1], "attention_mask has 1 elements, but input_ids has 0"),
        ([1], [], "attention_mask has 0 elements, but input_ids has 1"),
        ([1], [[1]], "attention_mask must be 1-D"),
        ([1], [1.0], "attention_mask must hold integers"),
        ([1], [2**31], "attention_mask holds 2147483648"),
    ],
)
def test_refuses_and_stores_nothing(cache: TokenizedCache, ids: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cache.put(key("k"), CachedTokens(ids, mask))
    with pytest.raises(ValueError, match=message):
        cache.put_many([(key("good"), CachedTokens([1])), (key("k"), CachedTokens(ids, mask))])
    assert cache.entry_count == 0


@pytest.mark.parametrize("wrong", [[1.5], np.ones(3), [True], ["a"], np.ones((2, 2))])
def test_tokens_of_anything_but_integers_cannot_be_made(wrong: Any) -> None:
    with pytest.raises(ValueError, match="input_ids must hold integers; its dtype is"):
        CachedTokens(wrong)
    with pytest.raises(ValueError, match="attention_mask must hold integers; its dtype is"):
        CachedTokens([1], wrong)
    assert CachedTokens([], []).input_ids.size == 0


def test_more_ids_than_the_key_has_length_are_refused(cache: TokenizedCache) -> None:
    cache.put(key("before", 3), CachedTokens([1, 2, 3]))
    with pytest.raises(ValueError, match="4 tokens for a key of sequence_len 3; cut them"):
        cache.put(key("k", 3), CachedTokens([1, 2, 3, 4]))
    with pytest.raises(ValueError, match="4 tokens for a key of sequence_len 3"):
        cache.put_many([(key("good", 4), CachedTokens([1] * 4)), (key("k", 3), CachedTokens([1] * 4))])
    cache.flush()
    assert cache.keys() == [key("before", 3)]


def test_what_get_returns_is_a_view(cache: TokenizedCache) -> None:
    cache.put(key("k"), CachedTokens(np.arange(1000)))
    cache.flush()
    first, second = cache.get(key("k")), cache.get(key("k"))
    assert first is not None and second is not None
    for name in ("input_ids", "attention_mask"):
        array = getattr(first, name)
        assert array.shape == (1000,)
        assert array.dtype == np.int32
        assert array.flags.c_contiguous and array.flags.aligned
        assert not array.flags.owndata and not array.flags.writeable
        assert np.shares_memory(array, getattr(second, name))
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError):
            array.setflags(write=True)
    assert first.input_ids.tolist() == list(range(1000))


@pytest.mark.parametrize("length", [1, 2, 3, 10, 100, 479, 600, 5000])
def test_alignment(cache: TokenizedCache, length: int) -> None:
    for name in range(20):
        cache.put(key(f"k{name}"), CachedTokens(np.arange(length) + name))
    cache.flush()
    for name in range(20):
        tokens = cache.get(key(f"k{name}"))
        assert tokens is not None
        assert tokens.input_ids.ctypes.data % (64 if length >= 500 else 8) == 0
        assert tokens.input_ids.tolist() == list(range(name, length + name))


def test_masks_of_ones_are_one_array(cache: TokenizedCache) -> None:
    masks = [stored(cache, range(length), mask).attention_mask for length, mask in ((9, None), (7, [1] * 7))]
    assert np.shares_memory(masks[0], masks[1])
    assert masks[0].tolist() == [1] * 9
    irregular = stored(cache, [1, 2], [0, 1]).attention_mask
    assert irregular.tolist() == [0, 1]
    assert not irregular.flags.writeable


def test_a_view_outlives_everything(tmp_path: pathlib.Path) -> None:
    cache = TokenizedCache.open(tmp_path / "store", max_bytes=1 << 20)
    expected = {}
    for index in range(20):
        ids, mask = np.arange(index, index + 700), np.arange(700) % 2
        cache.put(key(f"k{index}"), CachedTokens(ids, mask))
        expected[f"k{index}"] = (ids, mask)
    cache.flush()
    arrays = {}
    for name in expected:
        tokens = cache.get(key(name))
        assert tokens is not None
        arrays[name] = (tokens.input_ids, tokens.attention_mask)
    del tokens
    for fill in range(5):
        cache.clear()
        for index in range(20):
            cache.put(key(f"other{fill} {index}"), CachedTokens(np.full(700, -fill)))
        cache.flush()
    cache.close()
    del cache
    gc.collect()
    for name, (ids, mask) in expected.items():
        assert np.array_equal(arrays[name][0], ids)
        assert np.array_equal(arrays[name][1], mask)


def test_pending_tokens_are_views_too(cache: TokenizedCache) -> None:
    ids = np.arange(50)
    tokens = stored(cache, ids)
    ids[:] = 0  # the store has its own copy
    cache.put(key("k"), CachedTokens([9]))
    cache.flush()
    cache.close()
    assert tokens.input_ids.tolist() == list(range(50))
    assert not tokens.input_ids.flags.writeable


@pytest.mark.parametrize("name", ["input_ids", "attention_mask"])
def test_one_array_alone_keeps_its_bytes(cache: TokenizedCache, name: str) -> None:
    values = np.arange(1000) % 2
    cache.put(key("k"), CachedTokens(values, values))
    cache.flush()
    array = getattr(cache.get(key("k")), name)
    cache.clear()
    cache.close()
    gc.collect()
    assert array.tolist() == [0, 1] * 500


def test_is_equal_by_value_and_pickles_as_a_copy(cache: TokenizedCache) -> None:
    tokens = stored(cache, [1, 2, 3], [1, 1, 0])
    assert tokens == CachedTokens([1, 2, 3], [1, 1, 0])
    assert tokens != CachedTokens([1, 2, 4], [1, 1, 0])
    assert tokens != CachedTokens([1, 2, 3])
    assert tokens != "tokens"
    assert CachedTokens([1, 2]) == CachedTokens([1, 2], [1, 1])
    again = pickle.loads(pickle.dumps(tokens))
    assert again == tokens == copy.deepcopy(tokens)
    assert not np.shares_memory(again.input_ids, tokens.input_ids)
    with pytest.raises(TypeError):
        hash(tokens)
    cache.put(key("copy"), tokens)
    assert cache.get(key("copy")) == tokens


def test_keeps_what_it_was_given() -> None:
    ids = np.array([1, 2], np.int64)
    tokens = CachedTokens(ids)
    assert tokens.input_ids is ids
    assert tokens.attention_mask.tolist() == [1, 1]
    with pytest.raises(AttributeError):
        tokens.input_ids = ids  # type: ignore[misc]
    assert (
        repr(CachedTokens([7]))
        == "CachedTokens(input_ids=array([7]), attention_mask=array([1], dtype=int32))"
    )


def test_is_a_read_only_mapping(cache: TokenizedCache) -> None:
    for tokens in (CachedTokens([1, 2]), stored(cache, [1, 2]), stored(cache, [1, 2], [0, 1])):
        assert isinstance(tokens, collections.abc.Mapping)
        assert not isinstance(tokens, collections.abc.MutableMapping)
        assert len(tokens) == 2
        assert list(tokens) == list(tokens.keys()) == ["input_ids", "attention_mask"]
        assert "input_ids" in tokens and "attention_mask" in tokens
        for absent in ("labels", "", "input_ids ", 0, None, [1], np.zeros(2)):
            assert absent not in tokens
        for name in tokens:
            assert tokens[name].tolist() == tokens.get(name).tolist() == getattr(tokens, name).tolist()
        assert tokens.get("labels") is None
        assert tokens.get("labels", 7) == 7
        assert [array.tolist() for array in tokens.values()] == [
            tokens.input_ids.tolist(),
            tokens.attention_mask.tolist(),
        ]
        assert {name: array.tolist() for name, array in tokens.items()} == {
            name: array.tolist() for name, array in dict(tokens).items()
        }
        for other in ("labels", 0, None, [1]):
            assert tokens.get(other) is None  # type: ignore[arg-type]
            with pytest.raises(KeyError):
                tokens[other]  # type: ignore[index]
        with pytest.raises(TypeError):
            tokens["input_ids"] = 1  # type: ignore[index]


def test_is_not_made_of_a_mapping() -> None:
    """default_collate would make one of a dict of batches."""
    for mapping in ({"input_ids": [1]}, CachedTokens([1])):
        with pytest.raises(TypeError, match="input_ids is a mapping"):
            CachedTokens(mapping)  # type: ignore[arg-type]
