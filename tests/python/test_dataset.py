"""tokcask.torch.TokenDataset: items, missing entries, pickles, workers of every start method."""

from __future__ import annotations

import copy
import functools
import os
import pathlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import tokcask
import torch
import torch.utils.data
from tokcask import CachedTokens, CacheKey, MissingEntryError, TokenizedCache
from tokcask.torch import Collator, PackedDataset, TokenDataset, collate

from conftest import run_python

SHA = "ab" * 32


def key(number: int) -> CacheKey:
    return CacheKey(tokcask.section_id(str(number)), SHA, 1 << 14)


def tokens(number: int) -> np.ndarray[Any, Any]:
    """Short ones lie inside leaves, long ones in pages of their own."""
    length = 20 + number if number % 3 else 700 + 10 * number
    return (np.arange(length) * 31 + number * 7919) % 129_000


def fill(root: pathlib.Path, count: int) -> list[CacheKey]:
    with TokenizedCache.open(root) as cache:
        cache.put_many((key(i), CachedTokens(tokens(i))) for i in range(count))
    return [key(i) for i in range(count)]


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    yield tmp_path / "store"
    if (tmp_path / "store").exists():
        with TokenizedCache.open(tmp_path / "store") as cache:
            assert cache.verify().ok


def open_files(name: str) -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass  # the one that listed them
    return sum(link.endswith(name) for link in links)


def test_items_by_index(root: pathlib.Path) -> None:
    keys = fill(root, 60)
    dataset = TokenDataset(root, [*keys[::-1], keys[7], str(keys[8])])
    assert len(dataset) == 62
    for index in range(60):
        row = dataset[index]
        assert isinstance(row, CachedTokens)
        assert list(row) == ["input_ids", "attention_mask"]
        assert row["input_ids"].dtype == row["attention_mask"].dtype == np.int32
        np.testing.assert_array_equal(row["input_ids"], tokens(59 - index))
        assert row["attention_mask"].all()
        assert not row["input_ids"].flags.writeable
        assert not row["input_ids"].flags.owndata
    np.testing.assert_array_equal(dataset[-1]["input_ids"], tokens(8))
    np.testing.assert_array_equal(dataset[np.int64(60)]["input_ids"], tokens(7))
    assert dataset.lengths.tolist() == [len(tokens(i)) for i in [*range(59, -1, -1), 7, 8]]
    assert dataset.key(0) == keys[59]
    assert dataset.indices.tolist() == list(range(62))
    assert list(dataset.column_names) == ["input_ids", "attention_mask"]
    assert [len(dataset[i]["input_ids"]) for i in range(62)] == dataset.lengths.tolist()
    for bad in (62, -63):
        with pytest.raises(IndexError, match=f"index {bad} of a dataset with 62 items"):
            dataset[bad]
    with pytest.raises(TypeError, match="an index"):
        dataset["0"]  # type: ignore[index]


def test_many_items_at_once(root: pathlib.Path) -> None:
    dataset = TokenDataset(root, fill(root, 30))
    for indices in ([3, -1, 3], (3, 29, 3), np.array([3, 29, 3]), range(3, 6)):
        rows = dataset.__getitems__(indices)
        assert isinstance(rows, list)
        for index, row in zip(indices, rows, strict=True):
            assert isinstance(row, Mapping)
            np.testing.assert_array_equal(row["input_ids"], tokens(int(index) % 30))
    assert dataset.__getitems__([]) == []
    with pytest.raises(IndexError):
        dataset.__getitems__([0, 30])


def test_keys_of_the_store_are_what_it_takes(root: pathlib.Path) -> None:
    keys = fill(root, 20)
    with TokenizedCache.open(root) as cache:
        cache.put(CacheKey("other", "sha", 8), CachedTokens([1]))
        cache.flush()
        assert cache.keys(tokenizer_sha=SHA) == sorted(keys)
        assert cache.keys(sequence_len=8) == [CacheKey("other", "sha", 8)]
        assert cache.keys(tokenizer_sha=SHA, sequence_len=8) == []
        assert len(TokenDataset(root, cache.keys())) == 21
        with pytest.raises(ValueError, match="sequence_len"):
            cache.keys(sequence_len=2**31)


def test_missing_is_an_error_that_names_the_key(root: pathlib.Path) -> None:
    keys = fill(root, 3)
    with pytest.raises(MissingEntryError, match="1 of 4 keys have no entry") as caught:
        TokenDataset(root, [*keys, key(99)])
    assert isinstance(caught.value, KeyError)
    assert str(key(99)) in str(caught.value)
    with pytest.raises(FileNotFoundError):
        TokenDataset(root.parent / "nowhere", keys)
    with pytest.raises(ValueError, match="missing must be"):
        TokenDataset(root, keys, missing="ignore")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="item 1 is int"):
        TokenDataset(root, [keys[0], 7])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="not a key"):
        TokenDataset(root, ["7"])


def test_missing_keys_are_dropped(root: pathlib.Path) -> None:
    keys = fill(root, 3)
    dataset = TokenDataset(root, [key(99), keys[0], key(98), keys[2]], missing="drop")
    assert len(dataset) == 2
    assert dataset.indices.tolist() == [1, 3]
    np.testing.assert_array_equal(dataset[1]["input_ids"], tokens(2))
    assert pickle.loads(pickle.dumps(dataset)).indices.tolist() == [1, 3]


def test_missing_items_are_made(root: pathlib.Path) -> None:
    keys = fill(root, 3)
    asked: list[int] = []

    def make(index: int) -> Any:
        asked.append(index)
        return [CachedTokens([index] * 3), {"input_ids": [index, 5]}, [index, 7]][index % 3]

    dataset = TokenDataset(root, [*keys, key(10), key(11), key(12)], missing=make)
    assert dataset.lengths.tolist()[3:] == [0, 0, 0]
    assert dataset[3]["input_ids"].tolist() == [3, 3, 3]
    assert dataset[-2]["input_ids"].tolist() == [4, 5]
    rows = dataset.__getitems__([5, 0, -1])
    assert [row["input_ids"].tolist()[:2] for row in rows] == [[5, 7], tokens(0)[:2].tolist(), [5, 7]]
    assert asked == [3, 4, 5, 5]
    assert collate(rows)["input_ids"].shape == (3, len(tokens(0)))
    assert dataset[3]["input_ids"].dtype == np.int32


def test_an_entry_that_goes_later_says_so(root: pathlib.Path) -> None:
    keys = fill(root, 5)
    dataset = TokenDataset(root, keys)
    held = dataset[2]["input_ids"]
    with TokenizedCache.open(root) as cache:
        cache.clear()
        with pytest.raises(
            MissingEntryError, match=f"item 2 \\({str(keys[2]).replace('|', '.')}\\) has no entry"
        ):
            dataset[2]
        with pytest.raises(MissingEntryError, match="item 4"):
            dataset.__getitems__([4])
        np.testing.assert_array_equal(held, tokens(2))
        cache.put(keys[2], CachedTokens(tokens(2)))
        cache.flush()
        np.testing.assert_array_equal(dataset[2]["input_ids"], tokens(2))


def test_closing(root: pathlib.Path) -> None:
    dataset = TokenDataset(root, fill(root, 5))
    row = dataset[1]
    dataset.close()
    dataset.close()
    with pytest.raises(ValueError, match="closed"):
        dataset[0]
    np.testing.assert_array_equal(row["input_ids"], tokens(1))
    assert len(dataset) == 5


def test_handles_of_one_process_share_one_environment(root: pathlib.Path) -> None:
    keys = fill(root, 5)
    with TokenizedCache.open(root) as cache:
        once = open_files("data.mdb")
        datasets = [TokenDataset(root, keys), pickle.loads(pickle.dumps(TokenDataset(root, keys)))]
        again = copy.copy(cache)
        assert open_files("data.mdb") == once
        assert again.get(keys[0]) == datasets[0].__getitems__([0])[0]
        assert copy.copy(datasets[0])[1]["input_ids"].tolist() == tokens(1).tolist()


def test_a_pickle_is_small_and_opens_the_same_table(root: pathlib.Path) -> None:
    dataset = TokenDataset(root, fill(root, 1000), populate=True)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 16 * 1000 + 1000
    tables = list(root.glob("keys-*.shm"))
    assert len(tables) == 1
    made = tables[0].stat().st_mtime_ns
    other = pickle.loads(pickled)
    np.testing.assert_array_equal(other[17]["input_ids"], tokens(17))
    assert [table.stat().st_mtime_ns for table in root.glob("keys-*.shm")] == [made]
    # Without the table it makes one.
    tables[0].unlink()
    np.testing.assert_array_equal(pickle.loads(pickled)[17]["input_ids"], tokens(17))
    # The last stays, for the next run.
    del dataset, other
    (table,) = root.glob("keys-*.shm")
    made = table.stat().st_mtime_ns
    np.testing.assert_array_equal(pickle.loads(pickled)[17]["input_ids"], tokens(17))
    assert [table.stat().st_mtime_ns for table in root.glob("keys-*.shm")] == [made]


def test_prefetch_takes_indices(root: pathlib.Path) -> None:
    dataset = TokenDataset(root, fill(root, 50))
    dataset.prefetch(range(50))
    dataset.prefetch(np.array([1, 2]))
    dataset.prefetch([])
    with pytest.raises(IndexError):
        dataset.prefetch([50])


def first_ids(rows: list[CachedTokens]) -> torch.Tensor:
    """Which items these are, after each was compared with what it must be."""
    numbers = []
    for row in rows:
        ids = row["input_ids"]
        number = next(n for n in range(100) if len(tokens(n)) == len(ids) and (tokens(n) == ids).all())
        numbers.append(number)
    return torch.tensor(numbers)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_need_no_init_function(root: pathlib.Path, method: str) -> None:
    dataset = TokenDataset(root, fill(root, 90))
    np.testing.assert_array_equal(dataset[3]["input_ids"], tokens(3))  # used before the workers are made
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=8,
        shuffle=True,
        num_workers=2,
        collate_fn=first_ids,
        multiprocessing_context=method,
        persistent_workers=method != "spawn",
        timeout=120,
    )
    for _ in range(2 if method != "spawn" else 1):
        assert sorted(torch.cat(list(loader)).tolist()) == list(range(90))
    np.testing.assert_array_equal(dataset[3]["input_ids"], tokens(3))


def test_collated_in_workers(root: pathlib.Path) -> None:
    dataset = TokenDataset(root, fill(root, 60))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=16, num_workers=2, collate_fn=Collator(pad_token_id=5), timeout=120
    )
    for number, batch in enumerate(loader):
        wanted = collate(dataset.__getitems__(range(16 * number, min(16 * number + 16, 60))), pad_token_id=5)
        assert batch.keys() == wanted.keys()
        for name in wanted:
            assert batch[name].dtype == torch.int64
            assert torch.equal(batch[name], wanted[name])


def test_pinned_memory(root: pathlib.Path) -> None:
    dataset = TokenDataset(root, fill(root, 32))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=8, num_workers=1, collate_fn=collate, pin_memory=True, timeout=120
    )
    assert sum(int(batch["attention_mask"].sum()) for batch in loader) == dataset.lengths.sum()


@pytest.mark.parametrize("collator", ["transformers", "trl"])
def test_collators_of_others_take_its_rows(root: pathlib.Path, tokenizer: Any, collator: str) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    theirs: Callable[..., Any]
    if collator == "trl":
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        theirs = DataCollatorForLanguageModeling(pad_token_id=0)
    else:
        from transformers import DataCollatorWithPadding

        theirs = DataCollatorWithPadding(tokenizer)
    dataset = TokenDataset(root, fill(root, 20))
    for batch in torch.utils.data.DataLoader(dataset, batch_size=10, collate_fn=theirs):
        assert batch["input_ids"].shape[0] == 10


def test_packed(root: pathlib.Path) -> None:
    dataset = TokenDataset(root, fill(root, 60))
    packed = dataset.pack(2000)
    assert isinstance(packed, PackedDataset)
    loader = torch.utils.data.DataLoader(
        packed, batch_size=4, num_workers=1, collate_fn=Collator(max_length=2000), timeout=120
    )
    labelled = 0
    for batch in loader:
        assert batch["input_ids"].shape[1] == 2000
        assert "attention_mask" not in batch
        labelled += int((batch["labels"] != -100).sum())
    assert labelled == dataset.lengths.sum() - 60  # the first token of each item is nobody's to predict
    groups = [packed[j] for j in range(len(packed))]
    assert sum(len(group) for group in groups) == 60
    assert all(sum(len(row["input_ids"]) for row in group) <= 2000 for group in groups)
    assert len(groups) <= int(dataset.lengths.sum()) // 2000 + 4
    packed.prefetch([0, 1])
    assert packed.__getitems__([]) == []
    with pytest.raises(ValueError, match="row 33 has 1030 tokens"):
        dataset.pack(1000)


EXITS = {
    "with everything open": "iterator = iter(loader); batch = next(iterator); row = dataset[0]",
    "in a thread": (
        "import threading, time\n"
        "def read():\n"
        "    while True: dataset.__getitems__(range(8))\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        "time.sleep(0.2)"
    ),
    "with a pending put": "opened.put(tokcask.CacheKey('p', 'sha', 8), tokcask.CachedTokens([1]))",
    "from a cycle": "dataset.me = dataset; opened.flush()",
}


@pytest.mark.parametrize("how", EXITS)
def test_the_interpreter_ends(root: pathlib.Path, how: str) -> None:
    fill(root, 20)
    program = f"""
import sys, tokcask, torch.utils.data
from tokcask.torch import TokenDataset, collate
opened = tokcask.TokenizedCache.open(sys.argv[1])
dataset = TokenDataset(sys.argv[1], opened.keys())
loader = torch.utils.data.DataLoader(
    dataset, batch_size=4, num_workers=2, collate_fn=collate, persistent_workers=True
)
{EXITS[how]}
"""
    done = run_python(program, root)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def count(rows: Any, factor: int) -> int:
    return factor * sum(len(row["input_ids"]) for row in rows)


def test_a_partial_is_a_fine_collate_function(root: pathlib.Path) -> None:
    dataset = TokenDataset(root, fill(root, 12))
    loader = torch.utils.data.DataLoader(dataset, batch_size=6, collate_fn=functools.partial(count, factor=2))
    assert sum(loader) == 2 * int(dataset.lengths.sum())
