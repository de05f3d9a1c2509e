"""Batches: the same, bit by bit, as what trainers' own collators make of the same rows."""

from __future__ import annotations

import os
import pathlib
import pickle
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tokcask
import torch
from tokcask import CachedTokens, TokenizedCache
from tokcask.torch import Collator, collate, pack
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, default_collate, get_worker_info

from conftest import key

PAD = 3


@pytest.fixture
def rng() -> random.Random:
    seed = os.environ.get("TOKCASK_TEST_SEED") or random.SystemRandom().randrange(2**32)
    print(f"TOKCASK_TEST_SEED={seed}")  # pytest shows it when the test fails
    return random.Random(str(seed))


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[TokenizedCache]:
    with TokenizedCache.open(tmp_path / "store") as opened:
        yield opened


Row = dict[str, list[int]]


def random_rows(rng: random.Random, *, shortest: int = 1, count: int | None = None) -> list[Row]:
    rows = []
    for _ in range(count or rng.randrange(1, 12)):
        length = rng.choice([shortest, 1, 2, 7, 8, 9, 63, 64, 65, rng.randrange(1, 300)])
        ids = [rng.randrange(6) for _ in range(length)]
        mask = [rng.randrange(2) for _ in ids] if rng.random() < 0.3 else [1] * length
        rows.append({"input_ids": ids, "attention_mask": mask})
    return rows


def ids_of(rows: list[Row]) -> list[Row]:
    return [{"input_ids": row["input_ids"]} for row in rows]


def from_store(store: TokenizedCache, rows: list[Row]) -> list[CachedTokens]:
    """The rows as the cache returns them, out of the map."""
    store.put_many((key(f"row {i}"), CachedTokens(**row)) for i, row in enumerate(rows))
    store.flush()
    found = store.get_many([key(f"row {i}") for i in range(len(rows))])
    assert None not in found
    return found  # type: ignore[return-value]


def made(rows: Any) -> Any:
    """Parameters of tests live until the end, but no CachedTokens shall: nanobind reports them as leaks."""
    return rows() if callable(rows) else rows


def check_same(batch: dict[str, Any], expected: Any, names: set[str] | None = None) -> None:
    """Names, and of each tensor shape, dtype and values."""
    assert set(batch) == (names or set(expected))
    for name, ours in batch.items():
        theirs = expected[name]
        if isinstance(theirs, int):
            assert type(ours) is int
            assert ours == theirs, name
        else:
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
            assert torch.equal(ours, theirs), name


@pytest.fixture(params=["right", "left"])
def padding_tokenizer(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    tokenizer.padding_side = request.param
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(PAD)
    assert tokenizer.pad_token_id == PAD
    return tokenizer


def paddings(rng: random.Random, longest: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Options of ours, and what they are called elsewhere."""
    for multiple in (None, 8, 64):
        yield {"pad_to_multiple_of": multiple}, {"pad_to_multiple_of": multiple}
        exact = longest + rng.randrange(20)
        yield (
            {"pad_to_multiple_of": multiple, "max_length": exact},
            {"pad_to_multiple_of": multiple, "max_length": exact, "padding": "max_length"},
        )


def test_as_transformers_with_padding(
    store: TokenizedCache, rng: random.Random, padding_tokenizer: Any
) -> None:
    from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding

    rows = random_rows(rng)
    for ours, theirs in paddings(rng, max(len(row["input_ids"]) for row in rows)):
        collator = Collator(pad_token_id=PAD, padding_side=padding_tokenizer.padding_side, **ours)
        expected = DataCollatorWithPadding(padding_tokenizer, **theirs)(rows)
        batch = collator(from_store(store, rows))
        check_same(batch, {**expected, "labels": batch["labels"]})

        labelled = [{**row, "labels": row["input_ids"]} for row in rows]
        check_same(batch, DataCollatorForSeq2Seq(padding_tokenizer, **theirs)(labelled))


def test_as_transformers_for_language_modeling(
    store: TokenizedCache, rng: random.Random, padding_tokenizer: Any
) -> None:
    from transformers import DataCollatorForLanguageModeling

    rows = random_rows(rng)
    for multiple in (None, 8):
        expected = DataCollatorForLanguageModeling(padding_tokenizer, mlm=False, pad_to_multiple_of=multiple)(
            rows
        )
        collator = Collator(
            pad_token_id=PAD,
            padding_side=padding_tokenizer.padding_side,
            pad_to_multiple_of=multiple,
            ignore_pad_token=True,
        )
        check_same(collator(from_store(store, rows)), expected)


def test_as_transformers_with_flattening(store: TokenizedCache, rng: random.Random) -> None:
    from transformers import DataCollatorWithFlattening

    rows = [*random_rows(rng, shortest=0), {"input_ids": [5], "attention_mask": [1]}]
    expected = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)(ids_of(rows))
    check_same(collate(from_store(store, rows), padding_free=True), expected)


@pytest.mark.parametrize("multiple", [None, 8])
def test_as_trl(store: TokenizedCache, rng: random.Random, multiple: int | None) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = random_rows(rng)
    tokens = from_store(store, rows)
    for options in ({}, {"padding_free": True}):
        expected = DataCollatorForLanguageModeling(pad_token_id=PAD, pad_to_multiple_of=multiple, **options)(
            ids_of(rows)
        )
        batch = collate(
            [{"input_ids": row.input_ids} for row in tokens],
            pad_token_id=PAD,
            pad_to_multiple_of=multiple,
            **options,
        )
        check_same(batch, expected)


def test_as_trl_over_packed_rows(store: TokenizedCache, rng: random.Random) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = random_rows(rng, count=20)
    tokens = from_store(store, rows)
    packs = pack([len(row["input_ids"]) for row in rows], 300)
    groups = [[tokens[i] for i in places] for places in packs]
    packed = [
        {
            "input_ids": [id for i in places for id in rows[i]["input_ids"]],
            "seq_lengths": [len(rows[i]["input_ids"]) for i in places],
        }
        for places in packs
    ]
    for multiple in (None, 64):
        theirs = DataCollatorForLanguageModeling(
            pad_token_id=PAD, padding_free=True, pad_to_multiple_of=multiple
        )(packed)
        ours = collate(groups, pad_token_id=PAD, padding_free=True, pad_to_multiple_of=multiple)
        check_same(ours, theirs)

        theirs = DataCollatorForLanguageModeling(
            pad_token_id=PAD, return_position_ids=True, pad_to_multiple_of=multiple
        )(packed)
        ours = collate(groups, pad_token_id=PAD, pad_to_multiple_of=multiple)
        assert set(ours) == {"input_ids", "position_ids", "labels"}
        # TRL's SFTTrainer ignores the first label of a row, too, but not in its collator.
        theirs["labels"][theirs["position_ids"] == 0] = -100
        check_same(ours, theirs, set(ours))


def test_packs_as_trl(rng: random.Random) -> None:
    import datasets
    from trl import pack_dataset

    datasets.disable_progress_bars()
    for capacity in (5, 64, 2048):
        lengths = [rng.randrange(capacity + 1) for _ in range(500)]
        rows = [[row] * length for row, length in enumerate(lengths)]
        packed = pack_dataset(datasets.Dataset.from_dict({"input_ids": rows}), capacity)
        packs = pack(lengths, capacity)
        assert [[lengths[i] for i in places] for places in packs] == packed["seq_lengths"]
        assert [[id for i in places for id in rows[i]] for places in packs] == list(packed["input_ids"])


def test_as_pad_sequence(store: TokenizedCache, rng: random.Random) -> None:
    rows = random_rows(rng, shortest=0)
    tensors = [torch.tensor(row["input_ids"], dtype=torch.int64) for row in rows]
    for side in ("right", "left"):
        expected = pad_sequence(tensors, batch_first=True, padding_value=PAD, padding_side=side)
        for given in (from_store(store, rows), tensors):
            batch = collate(
                given,
                pad_token_id=PAD,
                padding_side=side,
                labels=False,
                attention_mask=False,  # type: ignore[arg-type]
            )
            check_same(batch, {"input_ids": expected})


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_other_collators_take_cached_tokens(store: TokenizedCache, padding_tokenizer: Any) -> None:
    from transformers import DataCollatorWithPadding
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = from_store(store, [{"input_ids": [1, 2], "attention_mask": [1, 0]}, {"input_ids": [4, 5]}])
    whole = default_collate(rows)
    assert type(whole) is dict
    assert whole["input_ids"].tolist() == [[1, 2], [4, 5]]
    assert whole["attention_mask"].tolist() == [[1, 0], [1, 1]]
    padded = DataCollatorWithPadding(padding_tokenizer)(rows)
    assert padded["input_ids"].tolist() == [[1, 2], [4, 5]]
    assert DataCollatorForLanguageModeling(pad_token_id=0)(rows)["labels"].tolist() == [[1, 2], [4, 5]]


def test_packing_holds_every_row_once(store: TokenizedCache, rng: random.Random) -> None:
    rows = random_rows(rng, shortest=0, count=30)
    tokens = from_store(store, rows)
    packs = pack([len(row["input_ids"]) for row in rows], 512)
    assert all(places.dtype == np.int64 for places in packs)
    assert sorted(i for places in packs for i in places) == [
        i for i, row in enumerate(rows) if row["input_ids"]
    ]
    batch = collate(tokens, pad_token_id=PAD, packing=512)
    assert batch["input_ids"].shape == (len(packs), 512)
    check_same(
        batch, collate([[tokens[i] for i in places] for places in packs], pad_token_id=PAD, max_length=512)
    )
    assert collate(tokens, packing=500, pad_to_multiple_of=64)["labels"].shape[1] == 512


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2, 3], (4,)],
        ([1, 2, 3], [4]),
        [np.array([1, 2, 3]), np.array([4], np.int16)],
        [np.arange(1, 6, dtype=np.int32)[:3], np.array([4, 0], np.int32)[::2]],
        [torch.tensor([1, 2, 3]), torch.tensor([4], dtype=torch.int32)],
        [{"input_ids": [1, 2, 3]}, {"input_ids": torch.tensor([4]), "attention_mask": [1]}],
        lambda: [CachedTokens([1, 2, 3]), CachedTokens(np.array([4], np.uint8))],
        lambda: [CachedTokens([1, 2, 3]), {"input_ids": [4], "attention_mask": None}],
        [range(1, 4), [np.int64(4)]],
        [[torch.tensor(1), 2, 3], [4]],
        iter([[1, 2, 3], [4]]),
    ],
    ids=[
        "lists",
        "tuple",
        "numpy",
        "int32",
        "torch",
        "mappings",
        "given",
        "mixed",
        "sequences",
        "scalars",
        "iterator",
    ],
)
def test_takes_rows_of_every_kind(rows: Any) -> None:
    batch = collate(made(rows))
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3], [4, -100, -100]]


@pytest.mark.parametrize(
    "groups",
    [
        [[[1, 2], [3]], [[4]]],
        [(np.array([1, 2]), [3]), [[4]]],
        lambda: [[torch.tensor([1, 2]), CachedTokens([3])], [{"input_ids": [4]}]],
        [[], [[1, 2], [], [3]], [[4]]],
    ],
    ids=["lists", "numpy", "mixed", "empty"],
)
def test_takes_groups(groups: Any) -> None:
    groups = made(groups)
    empty = [[0, 0, 0]] if groups[0] == [] else []
    batch = collate(groups)
    assert batch["input_ids"].tolist() == [*empty, [1, 2, 3], [4, 0, 0]]
    assert batch["position_ids"].tolist() == [*empty, [0, 1, 0], [0, 0, 0]]
    ignored = [[-100] * 3] if empty else []
    assert batch["labels"].tolist() == [*ignored, [-100, 2, -100], [-100, -100, -100]]
    flat = collate(groups, padding_free=True)
    assert flat["input_ids"].tolist() == [[1, 2, 3, 4]]
    assert flat["cu_seq_lens_q"].tolist() == [0, 2, 3, 4]


@pytest.mark.parametrize("rows", [[[]], [[], []], lambda: [CachedTokens([])]])
def test_rows_without_tokens(rows: Any) -> None:
    rows = made(rows)
    assert collate(rows)["input_ids"].shape == (len(rows), 0)
    assert collate(rows, max_length=2, pad_token_id=7)["input_ids"].tolist() == [[7, 7]] * len(rows)
    for options in ({"padding_free": True}, {"packing": 4}):
        with pytest.raises(ValueError, match="no tokens in any row"):
            collate(rows, **options)


@pytest.mark.parametrize(
    ("rows", "options", "error", "message"),
    [
        ([], {}, ValueError, "no rows"),
        ({"input_ids": [[1]]}, {}, TypeError, "rows is a mapping"),
        (lambda: CachedTokens([1]), {}, TypeError, "rows is a mapping"),
        ([[1], [1, 2, 3]], {"max_length": 2}, ValueError, "row 1 has 3 tokens, which do not fit into 2"),
        ([[1], [1, 2, 3]], {"packing": 2}, ValueError, "row 1 has 3 tokens, which do not fit into 2"),
        (
            [[[1]], [[1], [2, 3]]],
            {"max_length": 2},
            ValueError,
            "bin 1 has 3 tokens, which do not fit into 2",
        ),
        ([[[1]]], {"packing": 2}, ValueError, "grouped already"),
        ([[1], [2**31]], {}, ValueError, "input_ids of row 1 holds 2147483648.*int32"),
        ([[1], [1.5]], {}, ValueError, "input_ids of row 1 must hold integers.*float64"),
        ([[1], None], {}, TypeError, "row 1 is None, as .* for a miss"),
        ([[1], 5], {}, ValueError, "input_ids of row 1 must be 1-D"),
        ([[1], "abc"], {}, ValueError, "input_ids of row 1 must be 1-D"),
        ([[1], [[2]]], {}, ValueError, "input_ids of row 1 must be 1-D"),
        ([[1], [2, [3]]], {}, ValueError, "input_ids of row 1 cannot be made an array"),
        ([[[1]], 5], {}, TypeError, "item 1 of rows is int, but those before are groups"),
        ([[[1]], [[2], [2.5]]], {}, ValueError, "input_ids of row 1 of group 1 must hold integers"),
        ([[1], {"labels": [1]}], {}, ValueError, "row 1 has no input_ids"),
        (
            [[1], {"input_ids": [1], "labels": [1]}],
            {},
            ValueError,
            'row 1 has parts that may decide what is learned ."labels".',
        ),
        ([{"input_ids": [1, 2], "attention_mask": [1]}], {}, ValueError, "attention_mask of row 0 has 1"),
        (
            lambda: [CachedTokens([1]), CachedTokens([1, 2], [1])],
            {},
            ValueError,
            "attention_mask of row 1 has 1",
        ),
    ],
)
def test_refuses_rows(rows: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        collate(made(rows), **options)


def test_labels_of_rows_are_no_harm_where_none_are_made() -> None:
    rows = [{"input_ids": [1], "labels": [1]}]
    assert set(collate(rows, labels=False)) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"padding_side": "up"}, ValueError),
        ({"max_length": 0}, ValueError),
        ({"max_length": 2**63}, ValueError),
        ({"pad_to_multiple_of": 0}, ValueError),
        ({"pad_to_multiple_of": -8}, ValueError),
        ({"packing": 0}, ValueError),
        ({"packing": 8, "max_length": 8}, ValueError),
        ({"packing": 8, "padding_free": True}, ValueError),
        ({"padding_free": True, "max_length": 8}, ValueError),
        ({"padding_free": True, "padding_side": "left"}, ValueError),
        ({"pad_token_id": 2**63}, ValueError),
        ({"pad_token_id": None}, TypeError),
        ({"max_length": 1.5}, TypeError),
        ({"absent": 1}, TypeError),
        ({"out": {}}, ValueError),
    ],
)
def test_refuses_options(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        collate(**options)


@pytest.mark.parametrize(
    ("lengths", "sequence_len", "message"),
    [
        ([3, 9], 8, "row 1 has 9 tokens"),
        ([3, -1], 8, "row 1 has a length of -1"),
        ([2**32], 2**40, "row 0 has a length of 4294967296"),
        ([1.5], 8, "integers"),
        ([[1]], 8, "1-D"),
        ([1], 0, "sequence_len is 0"),
    ],
)
def test_refuses_to_pack(lengths: Any, sequence_len: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(lengths, sequence_len)


def test_packs_lengths_of_every_kind() -> None:
    for lengths in ([3, 0, 1], np.array([3, 0, 1], np.uint64), torch.tensor([3, 0, 1])):
        assert [places.tolist() for places in pack(lengths, 4)] == [[0, 2]]
    assert pack([], 4) == []
    assert pack([0, 0], 4) == []


@pytest.mark.parametrize("options", [{}, {"padding_free": True}, {"packing": 300}], ids=str)
def test_fills_arrays_of_the_caller(store: TokenizedCache, rng: random.Random, options: Any) -> None:
    tokens = from_store(store, random_rows(rng))
    expected = collate(tokens, **options)
    out = {n: torch.full_like(a, 9) if torch.is_tensor(a) else a for n, a in expected.items()}
    batch = collate(tokens, out=out, **options)
    check_same(batch, expected)
    assert all(batch[name] is out[name] for name in out if torch.is_tensor(out[name]))

    arrays = {name: tensor.numpy() for name, tensor in out.items() if torch.is_tensor(tensor)}
    for array in arrays.values():
        array[...] = 8
    batch = collate(tokens, out=arrays, **options)
    for name, array in arrays.items():
        assert batch[name] is array
        assert np.array_equal(array, expected[name].numpy())


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (None, ValueError, "out has no labels"),
        (torch.zeros(2, 4, dtype=torch.int64), ValueError, r"labels has the shape \(2, 4\).*\(2, 3\)"),
        (torch.zeros(6, dtype=torch.int64), ValueError, r"labels has the shape \(6\)"),
        (torch.zeros(2, 3, dtype=torch.int32), TypeError, "labels must be a writable.*int64"),
        (torch.zeros(2, 3), TypeError, "labels must be a writable.*int64"),
        (torch.zeros(3, 2, dtype=torch.int64).T, TypeError, "C-contiguous"),
        (np.broadcast_to(np.int64(0), (2, 3)), TypeError, "writable"),
        (np.frombuffer(bytearray(49), np.int64, 6, 1).reshape(2, 3), TypeError, "labels must be"),
        ([[0] * 3] * 2, TypeError, "labels must be"),
    ],
    ids=["absent", "wide", "flat", "int32", "float", "transposed", "read-only", "unaligned", "list"],
)
def test_refuses_arrays(array: Any, error: type[Exception], message: str) -> None:
    ids = torch.full((2, 3), 9, dtype=torch.int64)
    out = {"input_ids": ids, "attention_mask": ids.clone()}
    if array is not None:
        out["labels"] = array
    with pytest.raises(error, match=message):
        collate([[1, 2, 3], [4]], out=out)
    assert ids.tolist() == [[9] * 3] * 2


def test_in_many_threads(store: TokenizedCache, rng: random.Random) -> None:
    tokens = from_store(store, random_rows(rng, count=64))
    expected = collate(tokens)
    with ThreadPoolExecutor(8) as threads:
        for batch in threads.map(lambda _: collate(tokens), range(400)):
            check_same(batch, expected)


def test_the_batch_outlives_the_rows(store: TokenizedCache) -> None:
    tokens = from_store(store, [{"input_ids": list(range(1000))}])
    batch = collate(tokens)
    del tokens
    store.clear()
    assert batch["input_ids"].tolist() == [list(range(1000))]


def test_without_rows_it_is_a_collator() -> None:
    collator = collate(pad_token_id=7, padding_side="left", labels=False)
    assert collator == Collator(pad_token_id=7, padding_side="left", labels=False)
    again = pickle.loads(pickle.dumps(collator))
    assert again == collator
    assert hash(again) == hash(collator)
    check_same(
        again([[1, 2], [3]]), collate([[1, 2], [3]], pad_token_id=7, padding_side="left", labels=False)
    )
    with pytest.raises(AttributeError):
        collator.pad_token_id = 8  # type: ignore[misc]
    with pytest.raises(TypeError):
        Collator(7)  # type: ignore[misc]


class _Telling:
    """Collates, and tells where the tensors lie before they are sent."""

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, rows: list[CachedTokens]) -> dict[str, Any]:
        batch = self.collator(rows)
        tensors = [value for value in batch.values() if torch.is_tensor(value)]
        return {
            **batch,
            "shared": all(t.is_shared() for t in tensors),
            "worker": get_worker_info() is not None,
        }


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
@pytest.mark.parametrize("options", [{}, {"padding_free": True}, {"packing": 512}], ids=str)
def test_in_workers(store: TokenizedCache, rng: random.Random, options: Any, strategy: str) -> None:
    tokens = from_store(store, random_rows(rng, count=20))
    collator = Collator(pad_token_id=PAD, **options)
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy(strategy)
    try:
        loader = DataLoader(tokens, batch_size=6, num_workers=2, collate_fn=_Telling(collator))  # type: ignore[arg-type]
        batches = list(loader)
    finally:
        torch.multiprocessing.set_sharing_strategy(before)
    assert len(batches) == 4
    for i, batch in enumerate(batches):
        assert batch.pop("worker") and batch.pop("shared")
        check_same(batch, collator(tokens[6 * i : 6 * i + 6]))


def test_tokcask_does_without_torch() -> None:
    from conftest import run_python

    process = run_python("import sys, tokcask; tokcask.CachedTokens([1]); print('torch' in sys.modules)")
    assert process.stdout == "False\n", process.stderr
