"""open(max_bytes=, shrink=, protect_run=), try_put(), and Ctrl-C in calls that wait."""

from __future__ import annotations

import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import tokcask
from tokcask import CachedTokens, CacheKey, TokenizedCache

MIB = 2**20


def key(number: int) -> CacheKey:
    return CacheKey(f"{number:016x}", "0" * 64, 2048)


def tokens(number: int, length: int = 2000) -> CachedTokens:
    return CachedTokens(np.arange(number, number + length), np.ones(length, dtype=np.int32))


def fill(root: pathlib.Path, count: int) -> None:
    with TokenizedCache.open(root) as cache:
        for number in range(count):
            cache.put(key(number), tokens(number))


def test_a_budget_that_is_too_low_removes_nothing(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 1000)
    fill(tmp_path / "other", 1)
    size = (tmp_path / "data.mdb").stat().st_size
    with pytest.raises(ValueError, match=rf"max_bytes is {2 * MIB},.*in a file of {size};.*shrink=True"):
        TokenizedCache.open(tmp_path, max_bytes=2 * MIB)
    with pytest.raises(ValueError, match="max_bytes"):
        tokcask.merge(tmp_path, [tmp_path / "other"], max_bytes=2 * MIB)
    with TokenizedCache.open(tmp_path, max_bytes=2 * MIB, read_only=True) as cache:
        assert cache.entry_count == 1000
    with TokenizedCache.open(tmp_path, max_bytes=2 * MIB, shrink=True) as cache:
        assert 100 < cache.entry_count < 300
        assert cache.file_bytes <= 2 * MIB
        assert cache.get(key(999)) is not None


def test_a_pickled_handle_does_not_fail_for_what_others_stored(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path, max_bytes=2 * MIB, protect_run=False) as cache:
        pickled = pickle.dumps(cache)
        code = (
            "import sys, numpy as np; from tokcask import *\n"
            f"with TokenizedCache.open(sys.argv[1], max_bytes={64 * MIB}) as cache:\n"
            "    for n in range(1000):\n"
            "        cache.put(CacheKey(f'{n:016x}', '0' * 64, 2048), CachedTokens(np.arange(2000), np.ones(2000, int)))\n"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        with pickle.loads(pickled) as again:
            assert again.entry_count == 1000
            assert again.max_bytes == 2 * MIB


def test_a_server_goes_on_evicting(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path, max_bytes=2 * MIB, protect_run=False) as cache:
        for number in range(2000):
            cache.put(key(number), tokens(number))
            if number % 100 == 99:
                cache.flush()
        cache.flush()
        run = cache.stats()["run"]
        assert run["declined"] == 0
        assert run["evicted"] > 1500
        assert all(cache.get(key(number)) is not None for number in range(1950, 2000))
        with pickle.loads(pickle.dumps(cache)) as worker:
            for number in range(2000, 3000):
                worker.put(key(number), tokens(number))
            worker.flush()
            assert worker.stats()["run"]["declined"] == 0


HOLD = """
import fcntl, sys
with open(sys.argv[1] + "/write.lock", "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def write_lock_held(root: pathlib.Path) -> Iterator[None]:
    """Another process has the write lock meanwhile."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.communicate("\n")


def test_try_put_does_not_wait(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path, batch_bytes=100_000, batch_age=3600) as cache:
        cache.flush()
        with write_lock_held(tmp_path):
            began = time.monotonic()
            taken = [cache.try_put(key(number), tokens(number)) for number in range(100)]
            assert time.monotonic() - began < 5
        assert taken[:10] == [True] * 10
        assert taken.count(False) == cache.stats()["not_taken"] > 80
        cache.flush()
        assert cache.stats()["run"]["puts"] == taken.count(True)


def interrupted_within(act: Callable[[], object]) -> float:
    """Seconds from Ctrl-C to KeyboardInterrupt."""
    when = []

    def press() -> None:
        when.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        act()
    done = time.monotonic()
    timer.join()
    return done - when[0]


def test_ctrl_c_ends_what_waits_and_nothing_is_lost(tmp_path: pathlib.Path) -> None:
    soon = 2.0  # 0.1 on a machine that is not busy
    cache = TokenizedCache.open(tmp_path, batch_bytes=100_000, batch_age=0.05)
    cache.put(key(0), tokens(0))
    cache.flush()
    with write_lock_held(tmp_path):
        cache.put(key(1), tokens(1))
        stop = threading.Event()
        wrong = []

        def look() -> None:
            while not stop.is_set():
                if cache.get(key(0)) is None:
                    wrong.append(0)

        reader = threading.Thread(target=look)
        reader.start()
        number = 1

        def put_on() -> None:
            nonlocal number
            while True:
                cache.put(key(number + 1), tokens(number + 1))
                number += 1

        for act in (cache.flush, cache.compact, lambda: cache.prune(3600), cache.clear, put_on, cache.close):
            assert interrupted_within(act) < soon
        stop.set()
        reader.join()
        assert not wrong
        assert not cache.closed
        assert all(cache.get(key(n)) is not None for n in range(number + 1))
    cache.flush()
    assert cache.stats()["pending"] == 0
    cache.close()
    with TokenizedCache.open(tmp_path, read_only=True) as cache:
        assert cache.entry_count == number + 1
        assert all(cache.get(key(n)) is not None for n in range(number + 1))


def test_ctrl_c_ends_an_open_that_waits(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 500)
    with write_lock_held(tmp_path):
        act = lambda: TokenizedCache.open(tmp_path, max_bytes=MIB, shrink=True)
        assert interrupted_within(act) < 2.0
    with TokenizedCache.open(tmp_path) as cache:
        assert cache.entry_count == 500


def test_two_processes_that_both_missed(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path, max_bytes=2 * MIB, batch_age=3600) as cache:
        number = 0
        while cache.stats()["run"]["declined"] == 0:
            cache.put(key(number), tokens(number))
            cache.flush()
            number += 1
        stored = cache.entry_count
        code = (
            "import sys, numpy as np; from tokcask import *\n"
            "with TokenizedCache.open(sys.argv[1]) as cache:\n"
            "    for n in range(int(sys.argv[2])):\n"
            "        cache.put(CacheKey(f'{n:016x}', '0' * 64, 2048),"
            " CachedTokens(np.arange(n, n + 2000), np.ones(2000, int)))\n"
            "    cache.flush()\n"
            "    print(cache.entry_count, cache.stats()['run']['declined'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(stored)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.split() == [str(stored), "0"]
