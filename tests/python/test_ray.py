"""tokcask.ray on a cluster of Ray's own on this machine: a worker killed, the driver killed, and equal to one process's
work. Runs where Ray is installed: pip install 'ray[data]'."""

from __future__ import annotations

import os
import pathlib
import signal
from typing import Any

import pytest

from scaling import (
    by_one_process,
    contents,
    make_corpus,
    names,
    run,
    stalled,
    started,
    texts_of,
    tokenized,
    wait_until,
)

pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")

WRITE = """
import ray
from tokcask.ray import TokcaskDatasink

ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
rows = ray.data.read_json(str(here / "corpus"), override_num_blocks=4)
rows.write_datasink(TokcaskDatasink(here / "store", tokenizer=tokenizer, sequence_len=LENGTH))
"""


@pytest.fixture
def here(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path


@pytest.fixture
def corpus(here: pathlib.Path, small_json: str) -> dict[str, list[str]]:
    return make_corpus(here, small_json)


def parts(here: pathlib.Path) -> list[str]:
    folder = here / "store.parts"
    return [name for name in names(folder) if not name.startswith(".")] if folder.exists() else []


def test_a_worker_that_is_killed(here: pathlib.Path, corpus: dict[str, list[str]]) -> None:
    (here / "stall").touch()
    with started(WRITE, here) as driver:
        worker = stalled(here)
        wait_until(lambda: len(parts(here)) == 3, "the other tasks do not end")
        os.kill(worker, signal.SIGKILL)
        out, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, out
    assert contents(here / "store") == by_one_process(here, corpus)
    assert names(here / "store.parts") == []
    once = tokenized(here)
    own = set(corpus["1.jsonl"][10:])
    assert {once[text] for text in own} == {2}
    assert {once[text] for text in texts_of(corpus) if text not in own and "common" not in text} == {1}


def test_a_driver_that_is_killed(here: pathlib.Path, corpus: dict[str, list[str]]) -> None:
    (here / "stall").touch()
    with started(WRITE, here) as driver:
        worker = stalled(here)
        wait_until(lambda: len(parts(here)) == 3, "the other tasks do not end")
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        wait_until(lambda: not pathlib.Path(f"/proc/{worker}").exists(), "the worker outlives its driver")
    assert not (here / "store").exists()
    run(WRITE, here)
    assert contents(here / "store") == by_one_process(here, corpus)
    assert names(here / "store.parts") == []
    once = tokenized(here)
    own = set(corpus["1.jsonl"][10:])
    assert {once[text] for text in own} == {2}
    assert {once[text] for text in texts_of(corpus) if text not in own and "common" not in text} == {1}
    run(WRITE, here)
    assert tokenized(here) == once


def test_rows_of_messages(here: pathlib.Path, tokenizer: Any) -> None:
    """They come out of Arrow as they went in, so their keys are those of pretokenize_rows()."""
    import ray
    import tokcask
    from tokcask.ray import TokcaskDatasink

    rows = [{"messages": [{"role": "user", "content": f"question {n}"}]} for n in range(50)]
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
    try:
        ray.data.from_items(rows).write_datasink(
            TokcaskDatasink(here / "store", tokenizer=tokenizer, sequence_len=64)
        )
    finally:
        ray.shutdown()
    with tokcask.TokenizedCache.open(here / "store", read_only=True) as cache:
        _, stats = tokcask.pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=64, cache=cache)
    assert (stats.cache_hits, stats.cache_misses) == (50, 0)
