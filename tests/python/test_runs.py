"""Runs: which processes belong to one, and what is told of them."""

from __future__ import annotations

import multiprocessing
import pathlib
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tokcask import CachedTokens, CacheKey, TokenizedCache

SHA = "ab" * 32


def key(section: str, sequence_len: int = 100) -> CacheKey:
    return CacheKey(section, SHA, sequence_len)


def fill(root: pathlib.Path, count: int) -> list[CacheKey]:
    keys = [key(f"{i:016x}") for i in range(count)]
    with TokenizedCache.open(root) as cache:
        cache.put_many((k, CachedTokens(np.arange(i + 1))) for i, k in enumerate(keys))
    return keys


def read(cache: TokenizedCache, keys: list[CacheKey], run_ids: Any) -> None:
    assert all(cache.get(k) is not None for k in keys)
    run_ids.put(cache.run_id)


def test_figures_of_runs(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path) as cache:
        assert cache.runs() == []
        assert cache.run_id == 1
        cache.put(key("a"), CachedTokens([1]))
        assert cache.get(key("a")) is not None
        assert cache.get(key("b", 8)) is None
        assert cache.runs()[0]["state"] == "alive"
        assert cache.stats()["last_run"] == cache.runs()[0]
    assert cache.run_id == 1
    with TokenizedCache.open(tmp_path, read_only=True) as cache:
        (run,) = cache.runs()
    assert run["run_id"] == 1
    assert run["state"] == "ended"
    assert (run["hits"], run["misses"], run["puts"], run["derived"]) == (1, 1, 1, 0)
    assert (run["tokenizer_sha"], run["sequence_len"], run["several_tokenizers"]) == (SHA, 100, True)
    assert run["started_ns"] <= run["last_active_ns"] <= run["ended_ns"]
    with pytest.raises(ValueError, match="closed"):
        cache.runs()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_with_an_inherited_or_pickled_cache_belongs_to_its_run(
    tmp_path: pathlib.Path, method: str
) -> None:
    keys = fill(tmp_path, 5)
    context = multiprocessing.get_context(method)
    run_ids = context.SimpleQueue()
    with TokenizedCache.open(tmp_path, read_only=True) as cache:
        workers = [context.Process(target=read, args=(cache, keys, run_ids)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        assert [run_ids.get(), run_ids.get()] == [2, 2]
        assert cache.hits == 0
        assert cache.stats()["last_run"]["hits"] == 10
    with TokenizedCache.open(tmp_path) as cache:
        assert [(run["run_id"], run["hits"], run["state"]) for run in cache.runs()] == [
            (2, 10, "ended"),
            (1, 0, "ended"),
        ]


def test_joins_a_living_run_only(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path) as cache:
        with TokenizedCache.open(tmp_path, run_id=cache.run_id) as member:
            assert member.run_id == cache.run_id
            member.put(key("a"), CachedTokens([1]))
        pickled = pickle.dumps(cache)
        with pickle.loads(pickled) as again:
            assert again.run_id == cache.run_id
        run_id = cache.run_id
    with TokenizedCache.open(tmp_path, run_id=run_id) as other, pickle.loads(pickled) as last:
        assert other.run_id == run_id + 1
        assert last.run_id == run_id + 2
    for bad, error in ((-1, ValueError), ("1", TypeError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="run_id"):
            TokenizedCache.open(tmp_path, run_id=bad)  # type: ignore[arg-type]


def test_a_killed_run_is_told_as_killed(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 1)
    program = (
        "import os, signal, sys, tokcask\n"
        "cache = tokcask.TokenizedCache.open(sys.argv[1], read_only=True)\n"
        "cache.get(cache.keys()[0])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -9
    with TokenizedCache.open(tmp_path) as cache:
        assert cache.runs()[0]["state"] == "killed"
        assert cache.runs()[0]["hits"] == 1


def test_a_program_that_ends_without_closing_was_not_killed(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 1)
    program = (
        "import sys, tokcask\n"
        "cache = tokcask.TokenizedCache.open(sys.argv[1], read_only=True)\n"
        "cache.get(cache.keys()[0])\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    with TokenizedCache.open(tmp_path) as cache:
        assert cache.runs()[0]["state"] == "ended"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_a_loader_add_to_one_run(tmp_path: pathlib.Path, method: str) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    from tokcask.torch import TokenDataset, collate

    keys = fill(tmp_path, 40)
    dataset = TokenDataset(tmp_path, keys)
    assert dataset.run_id == 2
    loader = torch_data.DataLoader(
        dataset,
        batch_size=4,
        num_workers=2,
        collate_fn=collate,
        multiprocessing_context=method,
        persistent_workers=True,
    )
    for _ in range(2):
        assert sum(len(batch["input_ids"]) for batch in loader) == 40
    with TokenizedCache.open(tmp_path, run_id=dataset.run_id) as cache:
        assert cache.run_id == 2
        last = cache.stats()["last_run"]
        assert (last["run_id"], last["hits"], last["misses"]) == (2, 80, 0)
        assert (last["tokenizer_sha"], last["sequence_len"]) == (SHA, 100)
    del loader
    dataset.close()
    assert dataset.run_id == 0
    with TokenizedCache.open(tmp_path) as cache:
        assert len(cache.runs()) == 2
        assert (cache.runs()[0]["hits"], cache.runs()[0]["state"]) == (80, "ended")
