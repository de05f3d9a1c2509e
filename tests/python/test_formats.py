"""Stores that builds of each format's number have written are read by this build, for ever.

tests/formats/golden/N has a data.mdb and what is in it. Number 1 was written by a build that knew no other.
"""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest
from tokcask import CachedTokens, CacheKey, TokenizedCache

GOLDEN = pathlib.Path(__file__).parent.parent / "formats" / "golden"
NUMBERS = [1, 2]


def format_of(store: pathlib.Path) -> int:
    """The greatest number in a store row of the file."""
    file = (store / "data.mdb").read_bytes()
    places = [place for place in range(0, len(file), 8) if file[place : place + 8] == b"tokcask\0"]
    return max(int.from_bytes(file[place + 8 : place + 12], "little") for place in places)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_store_of_each_number_is_read(tmp_path: pathlib.Path, number: int) -> None:
    shutil.copy(GOLDEN / str(number) / "data.mdb", tmp_path)
    assert format_of(tmp_path) == number
    expected = json.loads((GOLDEN / str(number) / "entries.json").read_text())
    with TokenizedCache.open(tmp_path) as cache:
        assert {str(key) for key in cache.keys()} == set(expected)
        for name, entry in expected.items():
            section, sha, length = name.split("|")
            found = cache.get(CacheKey(section, sha, int(length)))
            assert found is not None
            assert found.input_ids.tolist() == entry["input_ids"]
            assert found.attention_mask.tolist() == entry.get("attention_mask", [1] * len(entry["input_ids"]))
            assert {part: spans.tolist() for part, spans in found.spans.items()} == entry.get("spans", {})
            assert found.scalars == entry.get("scalars", {})
            arrays = {part: [str(array.dtype), array.tolist()] for part, array in found.arrays.items()}
            assert arrays == entry.get("arrays", {})
        assert cache.verify().ok
        # Only parts make it a store that other programs cannot read.
        cache.put(CacheKey("another", "cd" * 32, 8), CachedTokens([1]))
        cache.flush()
        assert format_of(tmp_path) == number
        weights = np.zeros(2, np.float32)
        cache.put(CacheKey("another", "cd" * 32, 8), CachedTokens([1], arrays={"weights": weights}))
        cache.flush()
        assert format_of(tmp_path) == max(NUMBERS)
        assert cache.verify().ok


def test_a_store_of_a_greater_number_is_set_aside(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = bytearray((GOLDEN / "2" / "data.mdb").read_bytes())
    for place in range(0, len(file), 8):
        if file[place : place + 8] == b"tokcask\0":
            file[place + 8 : place + 12] = (3).to_bytes(4, "little")
    (tmp_path / "data.mdb").write_bytes(file)
    with TokenizedCache.open(tmp_path) as cache:
        assert cache.entry_count == 0
    assert "has format version 3, and this program reads versions up to 2" in caplog.text
    (kept,) = tmp_path.glob("data.mdb.set-aside-*")
    assert kept.read_bytes() == bytes(file)
