"""Processes that fill one store at the same time: each section is tokenized once, and nobody waits for the dead."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest
from tokcask import TokenizedCache, pretokenize_rows

ROWS = 400

TOKENIZER = """
import os, pathlib, sys, time

class Tokenizer:
    '''Writes each text into a log; may stop for good in its third call.'''
    sha256 = "ab" * 32

    def __init__(self, log, stall=False):
        self.log, self.stall, self.calls = open(log, "a"), stall, 0

    def encode_batch(self, texts, max_length):
        self.calls += 1
        self.log.write("".join(text + "\\n" for text in texts))
        self.log.flush()
        if self.stall and self.calls == 3:
            print("stalled", flush=True)
            time.sleep(600)
        return [[ord(letter) for letter in text][:max_length] for text in texts]
"""

FILL = (
    TOKENIZER
    + """
import logging
import tokcask, tokcask._filling
logging.basicConfig(level="WARNING")
store, log, patience, stall, count = sys.argv[1:]
tokcask._filling._PATIENCE = float(patience)
rows = [{"text": f"text {n}"} for n in range(int(count))]
with tokcask.TokenizedCache.open(store) as cache:
    rows, stats = tokcask.pretokenize_rows(
        rows, tokenizer=Tokenizer(log, stall == "stall"), sequence_len=64, cache=cache)
assert all(bytes(row["input_ids"].tolist()).decode() == row["text"] for row in rows)
print(stats.cache_hits, stats.cache_misses, flush=True)
"""
)

RANK = (
    TOKENIZER
    + """
import torch.distributed
from tokcask.trl import sft_dataset
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
rows = [{"text": f"text {n}"} for n in range(int(sys.argv[3]))]
torch.distributed.barrier()
dataset = sft_dataset(sys.argv[1], rows, tokenizer=Tokenizer(f"{sys.argv[2]}{rank}"), max_length=64)
ids = torch.tensor([row["input_ids"].sum() for row in dataset])
both = [torch.empty_like(ids) for _ in range(2)]
torch.distributed.all_gather(both, ids)
assert both[0].equal(both[1]) and len(ids) == len(rows)
torch.distributed.destroy_process_group()
"""
)


def start(*arguments: object, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FILL, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "WORLD_SIZE": "2", **more},
    )


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it hangs: {out}{err}") from None
    assert process.returncode == 0, err
    return out, err


def lines(log: pathlib.Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def all_texts() -> list[str]:
    return [f"text {number}" for number in range(ROWS)]


def wait_until(condition: Any) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.fixture
def stalled(tmp_path: pathlib.Path) -> Any:
    """A process that never ends its third batch of fifty."""
    process = start(tmp_path / "store", tmp_path / "stalled", 600, "stall", ROWS)
    assert process.stdout is not None
    assert process.stdout.readline() == "stalled\n"
    yield process
    process.kill()
    process.communicate()


def test_a_killed_one_is_taken_over(tmp_path: pathlib.Path, stalled: Any) -> None:
    theirs = lines(tmp_path / "stalled")
    other = start(tmp_path / "store", tmp_path / "other", 600, "", ROWS)
    wait_until(lambda: len(lines(tmp_path / "other")) >= ROWS - len(theirs))
    time.sleep(0.3)
    assert other.poll() is None  # it waits
    ours = lines(tmp_path / "other")
    assert sorted(theirs + ours) == sorted(all_texts())
    stalled.send_signal(signal.SIGKILL)
    out, _ = end(other)
    again = lines(tmp_path / "other")[len(ours) :]
    assert again
    assert set(again) < set(theirs)  # what was committed is not tokenized again
    assert out.split() == [str(len(theirs) - len(again)), str(len(ours) + len(again))]
    with TokenizedCache.open(tmp_path / "store") as cache:
        assert cache.entry_count == ROWS
        assert cache.verify().ok


def test_one_that_hangs_is_not_waited_for(tmp_path: pathlib.Path, stalled: Any) -> None:
    out, err = end(start(tmp_path / "store", tmp_path / "other", 0.3, "", ROWS))
    assert "goes on without waiting" in err
    assert {*lines(tmp_path / "stalled")[:100], *lines(tmp_path / "other")} == set(all_texts())
    assert stalled.poll() is None


def test_each_section_is_tokenized_once(tmp_path: pathlib.Path) -> None:
    """More processes than cores, with rows of their own besides the common ones."""
    processes = [start(tmp_path / "store", tmp_path / f"{n}", 600, "", ROWS * 5 + 40 * n) for n in range(4)]
    counts = [end(process)[0].split() for process in processes]
    made = Counter(text for n in range(4) for text in lines(tmp_path / f"{n}"))
    assert set(made.values()) == {1}
    assert len(made) == ROWS * 5 + 120
    assert sum(int(misses) for _, misses in counts) == len(made)


def test_threads_take_turns(tmp_path: pathlib.Path) -> None:
    made: list[str] = []

    class Tokenizer:
        sha256 = "ab" * 32

        def encode_batch(self, texts: Any, max_length: int) -> Any:
            made.extend(texts)
            time.sleep(0.001)
            return [[1]] * len(texts)

    def fill() -> None:
        with TokenizedCache.open(tmp_path / "store") as cache:
            rows = [{"text": text} for text in all_texts()]
            pretokenize_rows(rows, tokenizer=Tokenizer(), sequence_len=8, cache=cache)

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted(all_texts())


def test_a_fork_while_a_thread_tokenizes(tmp_path: pathlib.Path) -> None:
    """The child has neither its parent's claims nor its locks."""
    inside, go_on = threading.Event(), threading.Event()

    class Tokenizer:
        sha256 = "ab" * 32

        def encode_batch(self, texts: Any, max_length: int) -> Any:
            inside.set()
            assert go_on.wait(60)
            return [[1]] * len(texts)

    def fill(text: str) -> int:
        with TokenizedCache.open(tmp_path / "store") as cache:
            _, stats = pretokenize_rows([{"text": text}], tokenizer=Tokenizer(), sequence_len=8, cache=cache)
            return stats.cache_misses

    thread = threading.Thread(target=fill, args=["parent's"])
    thread.start()
    assert inside.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        go_on.set()
        os._exit(fill("child's") - 1)
    _, status = os.waitpid(child, 0)
    go_on.set()
    thread.join()
    assert status == 0
    assert fill("parent's") == fill("child's") == 0


def test_without_a_place_for_claims(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "tokenizing.lock").symlink_to(tmp_path / "elsewhere")
    with TokenizedCache.open(tmp_path / "store") as cache:
        _, stats = pretokenize_rows([{"text": "a"}], tokenizer=tokenizer, sequence_len=8, cache=cache)
    assert stats.cache_misses == 1
    assert not (tmp_path / "elsewhere").exists()


def test_two_ranks_of_torchrun(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "rank.py"), str(tmp_path / "store"), str(tmp_path / "rank"), "3000"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    by_rank = [lines(tmp_path / f"rank{rank}") for rank in range(2)]
    assert sorted(by_rank[0] + by_rank[1]) == sorted(f"text {number}" for number in range(3000))
    with TokenizedCache.open(tmp_path / "store") as cache:
        assert cache.entry_count == 3000
