"""Parts of entries: spans, scalars, arrays and labels, through CachedTokens and a store."""

from __future__ import annotations

import copy
import os
import pathlib
import pickle
import random
from typing import Any

import numpy as np
import pytest
from tokcask import CachedTokens, TokenizedCache
from tokcask.torch import TokenDataset, collate

from conftest import key


def tokens() -> CachedTokens:
    return CachedTokens(
        [5, 6, 7, 8, 9],
        spans={"assistant": [(1, 2), (3, 5)], "prompt": [(0, 1)], "none": []},
        scalars={"label": True, "margin": 0.25, "prompt_length": np.int32(3)},
        arrays={"weights": np.array([0.5, 1], np.float16), "types": np.zeros(0, np.int8)},
    )


def check(found: CachedTokens) -> None:
    assert found.input_ids.tolist() == [5, 6, 7, 8, 9]
    assert {name: spans.tolist() for name, spans in found.spans.items()} == {
        "assistant": [[1, 2], [3, 5]],
        "prompt": [[0, 1]],
        "none": [],
    }
    assert found.scalars == {"label": 1, "margin": 0.25, "prompt_length": 3}
    assert [type(value) for value in found.scalars.values()] == [int, int, float]
    assert found.arrays["weights"].tolist() == [0.5, 1.0]
    assert found.arrays["weights"].dtype == np.float16
    assert not found.arrays["weights"].flags.writeable
    assert found.arrays["types"].shape == (0,)
    assert found.part("prompt").tolist() == [5]
    assert found.part("none").tolist() == []
    assert found.labels is None


def test_come_back_as_they_were_put(tmp_path: pathlib.Path) -> None:
    check(tokens())
    with TokenizedCache.open(tmp_path) as cache:
        cache.put(key("one"), tokens())
        check(cache.get(key("one")))  # type: ignore[arg-type]
        cache.flush()
        found = cache.get(key("one"))
        assert found is not None
        check(found)
        assert found == tokens()
        # Without a copy, and alive as long as the array is.
        assert np.shares_memory(found.part("prompt"), found.input_ids)
        weights = found.arrays["weights"]
        assert weights.ctypes.data % 8 == 0
        del found
        cache.put(key("one"), CachedTokens([1]))
        cache.flush()
        assert weights.tolist() == [0.5, 1.0]
    with TokenizedCache.open(tmp_path) as cache:
        assert cache.get(key("one")) == CachedTokens([1])


def test_one_part_makes_another_value() -> None:
    assert tokens() == tokens()
    other = CachedTokens([5, 6, 7, 8, 9], scalars={"label": 0})
    assert other != tokens()
    assert other != CachedTokens([5, 6, 7, 8, 9])
    assert other == CachedTokens([5, 6, 7, 8, 9], scalars={"label": 0})


def test_copies_and_pickles_have_them(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path) as cache:
        cache.put(key("one"), tokens())
        for one in (tokens(), cache.get(key("one"))):
            check(pickle.loads(pickle.dumps(one)))
            check(copy.deepcopy(one))  # type: ignore[arg-type]
    assert "spans={'assistant'" in repr(tokens())


def test_labels_are_spans_where_they_are_ids(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path) as cache:
        given = {
            "spans": ([3, 4, 5, 6], [-100, 4, 5, -100]),
            "none": ([3, 4], [-100, -100]),
            "all": ([3, 4], [3, 4]),
            "others": ([3, 4], [-100, 7]),
            "empty": ([], []),
        }
        for number, (ids, labels) in enumerate(given.values()):
            cache.put(key(str(number)), CachedTokens(ids, labels=labels))
        cache.flush()
        for number, (ids, labels) in enumerate(given.values()):
            found = cache.get(key(str(number)))
            assert found is not None
            assert found.labels is not None
            assert found.labels.dtype == np.int64
            assert found.labels.tolist() == labels
            assert ("labels" in found.arrays) == (labels == [-100, 7])
            assert dict(found.items()).keys() == {"input_ids", "attention_mask", "labels"}
            assert found["labels"].tolist() == labels
            assert len(found) == 3


def test_a_row_without_labels_is_a_mapping_as_before() -> None:
    assert list(tokens()) == ["input_ids", "attention_mask"]
    assert "labels" not in tokens()
    with pytest.raises(KeyError):
        tokens()["labels"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spans": {"a": [(1, 3), (2, 4)]}}, ValueError, 'spans "a": spans overlap or are out of order'),
        ({"spans": {"a": [(2, 3), (0, 1)]}}, ValueError, "out of order"),
        ({"spans": {"a": [(2, 2)]}}, ValueError, "ends where it begins"),
        ({"spans": {"a": [(2, 6)]}}, ValueError, "a span ends at 6, beyond the 5 ids"),
        ({"spans": {"a": [(-1, 2)]}}, ValueError, r'spans\["a"\] has a place outside'),
        ({"spans": {"a": [1, 2]}}, ValueError, r'spans\["a"\] must be pairs'),
        ({"spans": {"a": [(0.5, 1.0)]}}, ValueError, r'spans\["a"\] must hold integers'),
        ({"spans": [(0, 1)]}, TypeError, "spans must be a mapping from names, not list"),
        ({"spans": {"": [(0, 1)]}}, ValueError, "name of a part is empty"),
        ({"spans": {"x" * 65: [(0, 1)]}}, ValueError, "more than 64 bytes"),
        ({"spans": {"\udc80": [(0, 1)]}}, UnicodeEncodeError, "surrogates"),
        ({"spans": {1: [(0, 1)]}}, TypeError, "a name of spans must be a str, not int"),
        ({"scalars": {"a": "1"}}, TypeError, r'scalars\["a"\] must be an int or a float, not str'),
        ({"scalars": {"a": 2**63}}, ValueError, r'scalars\["a"\] is 9223372036854775808'),
        ({"scalars": {f"s{i}": i for i in range(65)}}, ValueError, "at most 64 parts"),
        ({"arrays": {"a": [[1]]}}, ValueError, r'arrays\["a"\] must be 1-D'),
        ({"arrays": {"a": [1.0]}}, ValueError, r'arrays\["a"\] has the dtype float64; a part is of int8'),
        ({"arrays": {"a": ["x"]}}, ValueError, "has the dtype"),
        ({"labels": [1, 2]}, ValueError, "labels has 2 elements, but input_ids has 5"),
        ({"labels": [0.5] * 5}, ValueError, "labels must hold integers"),
        ({"labels": [2**31] * 5}, ValueError, "labels holds 2147483648, which does not fit into int32"),
        ({"labels": [1] * 5, "spans": {"labels": []}}, ValueError, "labels are given twice"),
    ],
)
def test_what_cannot_be_a_part(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CachedTokens([5, 6, 7, 8, 9], **arguments)


def test_a_part_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="no spans .*other.*assistant, none, prompt"):
        tokens().part("other")
    with pytest.raises(ValueError, match='"assistant" has 2 spans'):
        tokens().part("assistant")


def test_batches_learn_what_the_loss_names(tmp_path: pathlib.Path) -> None:
    rng = random.Random(os.environ.get("TOKCASK_TEST_SEED", "1"))
    rows = []
    for _ in range(40):
        n = rng.randrange(1, 60)
        ends = sorted(rng.sample(range(n + 1), min(n + 1, 4)))
        spans = list(zip(ends[::2], ends[1::2], strict=False))
        ids = [rng.randrange(9, 99) for _ in range(n)]
        scalars = {"prompt_length": rng.randrange(n + 3)}
        rows.append(CachedTokens(ids, spans={"assistant": spans}, scalars=scalars))
    keys = [key(str(number)) for number in range(len(rows))]
    with TokenizedCache.open(tmp_path) as cache:
        cache.put_many(zip(keys, rows, strict=True))
    dataset = TokenDataset(tmp_path, keys)
    items = [dataset[i] for i in range(len(dataset))]

    def labels(row: CachedTokens, *names: str) -> list[int]:
        learned = np.ones(len(row.input_ids), bool)
        if "assistant" in names:
            inside = np.zeros(len(learned), bool)
            for begin, end in row.spans["assistant"]:
                inside[begin:end] = True
            learned &= inside
        if "completion" in names:
            learned[: row.scalars["prompt_length"]] = False
        return np.where(learned, row.input_ids, -100).tolist()

    with pytest.raises(ValueError, match='row 0 has parts that may decide.*"assistant"'):
        collate(items)
    assert "labels" not in collate(items, labels=False)
    for names in ((), ("assistant",), ("completion",), ("assistant", "completion")):
        loss: Any = names or "all"
        batch = collate(items, loss=loss)
        flat = collate(items, loss=loss, padding_free=True)
        joined = []
        for place, row in enumerate(items):
            wanted = labels(row, *names)
            assert batch["labels"][place, : len(wanted)].tolist() == wanted
            assert set(batch["labels"][place, len(wanted) :].tolist()) <= {-100}
            joined += [-100, *wanted[1:]]
        assert flat["labels"][0].tolist() == joined
        packed = collate([items], loss=loss)
        assert packed["labels"][0].tolist() == joined
        for truncation in ("keep_start", "keep_end"):
            cut = collate(items, loss=loss, max_length=8, truncation=truncation)
            assert cut["input_ids"].shape == (len(items), 8)
            for place, row in enumerate(items):
                wanted = labels(row, *names)
                wanted = wanted[:8] if truncation == "keep_start" else wanted[-8:]
                assert cut["labels"][place, : len(wanted)].tolist() == wanted
            packs = collate(items, loss=loss, packing=8, truncation=truncation)
            assert packs["input_ids"].shape[1] == 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"truncation": "keep_start"}, ValueError, "truncation needs max_length or packing"),
        ({"truncation": "middle", "max_length": 3}, ValueError, "truncation is 'middle'"),
        ({"loss": ["all", "assistant"]}, ValueError, "'all' beside other names"),
        ({"loss": [1]}, TypeError, r"loss is \(1,\); it must be names"),
        ({"loss": "other"}, ValueError, 'row 0 has no part "other".*"assistant"'),
        ({"padding_free": True, "max_length": 3}, ValueError, "max_length needs truncation"),
    ],
)
def test_refuses_a_loss(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        collate([tokens()], **options)
