"""CacheKey and section_id."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from tokcask import CacheKey, section_id


def test_is_a_value() -> None:
    key = CacheKey("section ä", "ab12", 2048)
    assert (key.section_id, key.tokenizer_sha, key.sequence_len) == ("section ä", "ab12", 2048)
    assert key == CacheKey("section ä", "ab12", 2048)
    assert hash(key) == hash(CacheKey("section ä", "ab12", 2048))
    assert len({key, CacheKey("section ä", "ab12", 2048), CacheKey("section ä", "ab12", 2047)}) == 2
    assert key != "section ä|ab12|2048"
    assert CacheKey("a", "b", 1) < CacheKey("b", "a", 1) <= CacheKey("b", "a", 1)
    assert CacheKey("b", "a", 1) > CacheKey("a", "b", 1) >= CacheKey("a", "b", 1)


@pytest.mark.parametrize("changed", [("x", "b", 1), ("a", "x", 1), ("a", "b", 2)])
def test_any_change_is_another_key(changed: tuple[str, str, int]) -> None:
    assert CacheKey("a", "b", 1) != CacheKey(*changed)


def test_is_frozen() -> None:
    key: Any = CacheKey("a", "b", 1)
    for name in ("section_id", "tokenizer_sha", "sequence_len", "anything"):
        with pytest.raises(AttributeError):
            setattr(key, name, "c")


def test_text_forms() -> None:
    key = CacheKey("it's", "b", 2**31 - 1)
    assert str(key) == "it's|b|2147483647"
    assert CacheKey.parse(str(key)) == key
    assert eval(repr(key)) == key


def test_copies_and_pickles() -> None:
    key = CacheKey("ä", "b", 7)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(key, protocol)) == key
    assert copy.copy(key) == copy.deepcopy(key) == key
    assert b"_core" not in pickle.dumps(key)


@pytest.mark.parametrize("part", ["", "a|b", "a\0b", "a\nb", "\x7f", "x" * 505, "\ud800"])
@pytest.mark.parametrize("position", [0, 1])
def test_refuses_a_bad_part(part: str, position: int) -> None:
    parts = ["a", "b"]
    parts[position] = part
    with pytest.raises(ValueError):
        CacheKey(parts[0], parts[1], 1)


def test_says_which_part_is_bad_and_why() -> None:
    with pytest.raises(ValueError, match=r"tokenizer_sha.*'\|'"):
        CacheKey("a", "b|c", 1)
    with pytest.raises(ValueError, match=r"sequence_len is 0.*1 to 2147483647"):
        CacheKey("a", "b", 0)
    with pytest.raises(TypeError, match="section_id must be a str, not bytes"):
        CacheKey(b"a", "b", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, -1, 2**31, 2**63, -(2**63), 2**200])
def test_refuses_a_bad_length(length: int) -> None:
    with pytest.raises(ValueError, match="sequence_len"):
        CacheKey("a", "b", length)


@pytest.mark.parametrize("length", [True, False, 1.0, "1", None, np.float32(1), np.bool_(True)])
def test_refuses_a_length_that_is_no_int(length: Any) -> None:
    with pytest.raises(TypeError, match="sequence_len must be an int"):
        CacheKey("a", "b", length)


def test_takes_numpy_integers() -> None:
    assert CacheKey("a", "b", np.int64(5)) == CacheKey("a", "b", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "a", "a|b", "a|b|", "a|b|01", "a|b|+1", "a|b|1.0", "a|b|0", "|b|1", "a|b|c|1"]
)
def test_parses_only_the_canonical_form(text: str) -> None:
    with pytest.raises(ValueError):
        CacheKey.parse(text)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((b"text",), TypeError),
        ((None,), TypeError),
        (("text", 1), TypeError),
        (("\ud800",), ValueError),
        (("text", "a\0"), ValueError),
    ],
)
def test_section_id_refuses(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        section_id(*arguments)


def test_how_to_cut_nothing_is_said() -> None:
    untyped: Any = CacheKey
    with pytest.raises(TypeError, match=r"not None; for tokens that are not cut, give 2\*\*31 - 1"):
        untyped("a", "b", None)
