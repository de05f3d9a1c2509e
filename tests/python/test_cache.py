"""TokenizedCache: its life, its figures, threads, processes, messages and errors."""

from __future__ import annotations

import logging
import os
import pathlib
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import tokcask
from tokcask import CachedTokens, CacheKey, TokenizedCache

from conftest import key, run_python


def test_what_is_put_is_there_the_next_time(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path / "store") as cache:
        cache.put_many((key(str(n)), CachedTokens(np.arange(n))) for n in range(100))
        assert cache.entry_count == 100
    with TokenizedCache.open(str(tmp_path / "store")) as cache:
        for n, tokens in enumerate(cache.get_many(key(str(n)) for n in range(100))):
            assert tokens is not None
            assert tokens.input_ids.tolist() == list(range(n))
        assert cache.get(key("100")) is None


def test_a_put_replaces(cache: TokenizedCache) -> None:
    cache.put(key("k"), CachedTokens([1, 2]))
    cache.put(key("k"), CachedTokens([3]))
    assert cache.get(key("k")) == CachedTokens([3])
    assert cache.entry_count == 1


def test_a_survey_sums_up_what_is_stored(cache: TokenizedCache) -> None:
    assert cache.survey()["groups"] == []
    cache.put_many((key(str(n)), CachedTokens(np.arange(n))) for n in range(1, 6))
    cache.flush()
    survey = cache.survey()
    (group,) = survey["groups"]
    assert group["tokenizer_sha"] == key("1").tokenizer_sha
    assert group["sequence_len"] == key("1").sequence_len
    assert (group["entries"], group["tokens"]) == (5, 15)
    assert group["bytes"] == cache.total_bytes
    assert 0 < group["first_stored_ns"] <= group["last_stored_ns"] <= survey["taken_ns"]
    assert [(row["up_to"], row["entries"]) for row in survey["lengths"]] == [(1, 1), (2, 1), (4, 2), (8, 1)]
    assert [row["under_seconds"] for row in survey["last_access"]] == [60, 3600, 86400, 604800, 2592000, None]
    assert [row["entries"] for row in survey["last_access"]] == [5, 0, 0, 0, 0, 0]
    assert survey["last_access_unknown"] == {"entries": 0, "bytes": 0}
    assert (cache.hits, cache.misses) == (0, 0)


def test_put_many_checks_all_first(cache: TokenizedCache) -> None:
    good: Any = (key("a"), CachedTokens([1]))
    for bad in ((key("b"), CachedTokens([2**31])), (key("b"), [1]), ("b", CachedTokens([1])), (key("b"),), 3):
        with pytest.raises((TypeError, ValueError)):
            cache.put_many([good, bad])
    assert cache.entry_count == 0

    def fails() -> Any:
        yield good
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        cache.put_many(fails())
    assert cache.entry_count == 0
    cache.put_many([])


def test_wrong_types_are_named(cache: TokenizedCache) -> None:
    untyped: Any = cache
    with pytest.raises(TypeError, match="get_many: item 1 holds str, not a CacheKey"):
        untyped.get_many([key("a"), "a"])
    with pytest.raises(TypeError, match=r"get\(self, key: CacheKey\)"):
        untyped.get("a|b|1")
    with pytest.raises(TypeError):
        untyped.put(key("a"), [1, 2])
    with pytest.raises(TypeError):
        untyped.prune(3600, "a tokenizer")
    with pytest.raises(TypeError, match="older_than_seconds is str, not a number"):
        untyped.prune("an hour")
    with pytest.raises(TypeError):
        TokenizedCache()
    assert cache.hits == cache.misses == 0


def test_figures(cache: TokenizedCache) -> None:
    assert (cache.hits, cache.misses, cache.hit_rate, cache.entry_count) == (0, 0, 0.0, 0)
    cache.put(key("a"), CachedTokens(np.arange(1000)))
    cache.get(key("a"))
    cache.get_many([key("a"), key("b"), key("a")])
    cache.add_tokenize_seconds(1.5)
    cache.add_tokenize_seconds(0.25)
    assert (cache.hits, cache.misses, cache.hit_rate) == (3, 1, 0.75)
    cache.flush()
    stats = cache.stats()
    assert stats["payload_bytes"] == 4000
    assert stats["pending"] == 0
    assert stats["total_bytes"] == cache.total_bytes >= 4000
    assert stats["file_bytes"] == cache.file_bytes == (cache.root / "data.mdb").stat().st_size
    assert stats["run"]["puts"] == 1
    assert stats["run"]["tokenize_seconds"] == 1.75
    assert stats["run"]["run_id"] >= 1
    assert stats["run"]["ended_ns"] == 0
    assert set(stats["run"]) == set(stats["last_run"])
    for seconds in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            cache.add_tokenize_seconds(seconds)


def test_a_run_outlives_its_cache(tmp_path: pathlib.Path) -> None:
    with TokenizedCache.open(tmp_path / "store") as first:
        first.put(key("a"), CachedTokens([1]))
        first.get(key("a"))
        first.get(key("b"))
        first.save_manifest(tokenizer_sha="cd" * 32)
    with TokenizedCache.open(tmp_path / "store", read_only=True) as second:
        stats = second.stats()
        assert stats["tokenizer_sha"] == "cd" * 32
        assert (stats["last_run"]["hits"], stats["last_run"]["misses"]) == (1, 1)
        assert stats["last_run"]["ended_ns"] > stats["last_run"]["started_ns"] > 0


def test_closed(tmp_path: pathlib.Path) -> None:
    cache = TokenizedCache.open(tmp_path / "store")
    cache.put(key("a"), CachedTokens([1]))
    cache.get(key("a"))
    cache.close()
    cache.close()
    assert cache.closed
    calls: list[Any] = [
        lambda: cache.get(key("a")),
        lambda: cache.get_many([key("a")]),
        lambda: cache.put(key("a"), CachedTokens([1])),
        lambda: cache.put_many([(key("a"), CachedTokens([1]))]),
        cache.flush,
        lambda: cache.prune(older_than_seconds=0),
        cache.clear,
        cache.compact,
        cache.verify,
        cache.save_manifest,
        lambda: cache.add_tokenize_seconds(1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(ValueError, match="closed cache cannot be pickled"):
        pickle.dumps(cache)
    # What it was is still known.
    assert (cache.entry_count, cache.hits, cache.misses, cache.hit_rate) == (1, 1, 0, 1.0)
    assert cache.total_bytes > 0
    assert cache.root == tmp_path / "store"
    assert repr(cache).endswith(" closed>")


def test_with_closes_also_after_an_exception(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), TokenizedCache.open(tmp_path / "store") as cache:
        cache.put(key("a"), CachedTokens([1]))
        raise RuntimeError("mine")
    assert cache.closed
    with TokenizedCache.open(tmp_path / "store") as again:
        assert again.entry_count == 1


def test_prune_and_clear(cache: TokenizedCache) -> None:
    cache.put_many((key(str(n)), CachedTokens([n])) for n in range(10))
    cache.flush()
    for age in (3600, 1e300, float("inf")):
        assert cache.prune(older_than_seconds=age) == 0
    for age in (-1, float("nan")):
        with pytest.raises(ValueError, match="older_than_seconds"):
            cache.prune(older_than_seconds=age)
    assert cache.prune(older_than_seconds=0) == 10
    cache.put(key("a"), CachedTokens([1]))
    assert cache.clear() == 1
    assert cache.clear() == 0
    assert cache.get(key("a")) is None


def test_prune_by_tokenizer_length_and_runs(cache: TokenizedCache) -> None:
    for sha in ("a" * 64, "b" * 64):
        for length in (10, 20):
            cache.put(CacheKey("s", sha, length), CachedTokens([1]))
    with pytest.raises(ValueError, match="nothing says which"):
        cache.prune()
    for bad in ({"keep_last_runs": 0}, {"sequence_len": 0}, {"sequence_len": 2**31}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            cache.prune(**bad)  # type: ignore[arg-type]
    cache.flush()
    assert cache.prune(tokenizer_sha="a" * 64, sequence_len=10, dry_run=True) == 1
    assert cache.entry_count == 4
    assert cache.prune(tokenizer_sha="a" * 64, sequence_len=10) == 1
    assert cache.prune(3600, tokenizer_sha="b" * 64) == 0
    assert cache.prune(keep_last_runs=2**40) == 0
    assert cache.prune(sequence_len=20) == 2
    assert [key.tokenizer_sha for key in cache.keys()] == ["b" * 64]


def test_copy_of_a_store_in_use(cache: TokenizedCache, tmp_path: pathlib.Path) -> None:
    for n in range(50):
        cache.put(key(str(n)), CachedTokens([n] * 100, [1] * 100))
    held = cache.get(key("7"))
    report = cache.copy(tmp_path / "copy")
    assert report == {"bytes": (tmp_path / "copy" / "data.mdb").stat().st_size, "entries": 50, "damaged": 0}
    with TokenizedCache.open(tmp_path / "copy", read_only=True) as copied:
        assert [copied.get(key(str(n))).input_ids[0] for n in range(50)] == list(range(50))
    assert held.input_ids[0] == 7
    with pytest.raises(ValueError, match="holds a store"):
        cache.copy(tmp_path / "copy")


def test_compact(cache: TokenizedCache) -> None:
    cache.put_many((key(str(n)), CachedTokens(np.arange(n))) for n in range(500))
    cache.flush()
    held = [cache.get(key(str(n))) for n in range(0, 500, 7)]
    for n in range(0, 500, 2):
        cache.put(CacheKey(str(n), "other", 700), CachedTokens(np.arange(700)))
    assert cache.prune(tokenizer_sha="other") == 250
    report = cache.compact()
    assert report["bytes_after"] < report["bytes_before"]
    assert report["bytes_after"] == cache.file_bytes
    assert (report["entries"], report["damaged"]) == (500, 0)
    for n, tokens in zip(range(0, 500, 7), held, strict=True):
        assert tokens is not None
        assert tokens.input_ids.tolist() == list(range(n))
    assert cache.get(key("499")) == CachedTokens(np.arange(499))
    assert cache.verify().ok


def test_the_budget_that_was_given_last(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    with TokenizedCache.open(tmp_path / "store") as cache:
        assert cache.max_bytes == 10 * 1024**3
        pickled = pickle.dumps(cache)
        cache.put_many((key(str(n)), CachedTokens(np.arange(2000))) for n in range(400))
    with TokenizedCache.open(tmp_path / "store", max_bytes=1 << 20, shrink=True) as cache:
        assert cache.file_bytes <= cache.max_bytes == 1 << 20
        assert 50 < cache.entry_count < 130
    assert "made smaller for a budget of 1048576 bytes" in caplog.text
    with TokenizedCache.open(tmp_path / "store") as cache, pickle.loads(pickled) as again:
        assert cache.max_bytes == again.max_bytes == 1 << 20


def test_pickles_as_path_and_options(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with TokenizedCache.open(
        "store", max_bytes=1 << 22, lock_timeout=3.5, batch_bytes=1 << 20, batch_age=0.5
    ) as cache:
        cache.put(key("a"), CachedTokens([1, 2]))
        cache.flush()
        pickled = pickle.dumps(cache)
    assert b"_core" not in pickled
    monkeypatch.chdir("/")
    with pickle.loads(pickled) as again:
        assert again.max_bytes == 1 << 22
        assert again.get(key("a")) == CachedTokens([1, 2])
        assert pickle.loads(pickle.dumps(again)).max_bytes == 1 << 22
    with TokenizedCache.open(tmp_path / "store", read_only=True) as reader:
        assert pickle.loads(pickle.dumps(reader)).read_only


def test_a_state_of_another_shape_is_refused(cache: TokenizedCache) -> None:
    state = cache.__getstate__()  # type: ignore[misc]
    wrong: list[Any] = [state[:n] for n in range(len(state))]
    wrong += [(*state, 1), None, 3, list(state), b"x"]
    for place in range(len(state)):
        wrong += [(*state[:place], item, *state[place + 1 :]) for item in (object(), [], 1j)]
    for given in wrong:
        with pytest.raises(ValueError, match="another version of tokcask"):
            TokenizedCache.__new__(TokenizedCache).__setstate__(given)  # type: ignore[attr-defined]
    again = TokenizedCache.__new__(TokenizedCache)
    again.__setstate__(state)  # type: ignore[attr-defined]
    again.close()


def test_several_threads_close_one_cache(tmp_path: pathlib.Path) -> None:
    failed: list[BaseException] = []

    def close(cache: TokenizedCache, start: threading.Barrier) -> None:
        start.wait()
        try:
            cache.close()
            assert cache.closed
            with pytest.raises(ValueError, match="the cache is closed"):
                cache.get(key("k"))
        except BaseException as error:
            failed.append(error)

    for n in range(60):
        cache = TokenizedCache.open(tmp_path / "store")
        cache.put(key(str(n)), CachedTokens([n]))
        start = threading.Barrier(4)
        threads = [threading.Thread(target=close, args=(cache, start)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert cache.entry_count == n + 1


def test_a_cache_is_opened_not_made(tmp_path: pathlib.Path) -> None:
    untyped: Any = TokenizedCache
    for arguments in ((), (tmp_path,), ("x", 1)):
        with pytest.raises(TypeError, match=r"made by TokenizedCache\.open"):
            untyped(*arguments)
    with pytest.raises(TypeError, match=r"made by TokenizedCache\.open"):
        untyped(root="x")


def test_a_tilde_is_the_home_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with TokenizedCache.open("~/store") as cache:
        cache.put(key("k"), CachedTokens([1]))
        assert os.fspath(cache.root) == str(tmp_path / "store")
    assert not (tmp_path / "~").exists()
    dataset = tokcask._core.Dataset(pathlib.Path("~/store"), [key("k")])
    assert dataset.root == str(tmp_path / "store")
    with TokenizedCache.open(b"./~") as cache:  # type: ignore[arg-type]
        assert os.fspath(cache.root).endswith("/~")


@pytest.mark.parametrize("wrong", [2**40 + 1, 2**41, 2**63 - 1, -1])
def test_a_budget_that_cannot_be_mapped_is_refused(tmp_path: pathlib.Path, wrong: int) -> None:
    with pytest.raises(ValueError, match=f"max_bytes is {wrong}; it must be at"):
        TokenizedCache.open(tmp_path / "store", max_bytes=wrong)
    assert not (tmp_path / "store").exists()


def test_read_only(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="store"):
        TokenizedCache.open(tmp_path / "store", read_only=True)
    assert not (tmp_path / "store").exists()
    with TokenizedCache.open(tmp_path / "store") as cache:
        cache.put(key("a"), CachedTokens([1]))
    with TokenizedCache.open(tmp_path / "store", read_only=True) as reader:
        assert reader.get(key("a")) == CachedTokens([1])
        for call in (
            lambda: reader.put(key("b"), CachedTokens([1])),
            lambda: reader.prune(older_than_seconds=0),
            reader.clear,
            reader.compact,
            reader.save_manifest,
        ):
            with pytest.raises(tokcask.ReadOnlyError):
                call()
        assert reader.entry_count == 1


@pytest.mark.parametrize(
    ("root", "options", "error"),
    [
        ("", {}, ValueError),
        ("a\0b", {}, ValueError),
        (3, {}, TypeError),
        (None, {}, TypeError),
        ("s", {"max_bytes": 0}, ValueError),
        ("s", {"max_bytes": -1}, ValueError),
        ("s", {"max_bytes": 1000}, ValueError),
        ("s", {"max_bytes": 2**64}, ValueError),
        ("s", {"max_bytes": 1e9}, TypeError),
        ("s", {"max_bytes": True}, TypeError),
        ("s", {"lock_timeout": -1}, ValueError),
        ("s", {"batch_age": float("nan")}, ValueError),
        ("s", {"batch_bytes": -1}, ValueError),
        ("s", {"unknown": 1}, TypeError),
    ],
)
def test_open_refuses(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, root: Any, options: Any, error: type[Exception]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        TokenizedCache.open(root, **options)
    assert list(tmp_path.iterdir()) == []


def test_open_where_there_can_be_no_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match="file"):
        TokenizedCache.open(tmp_path / "file" / "store")


def test_errors_are_kinds_of_oserror() -> None:
    assert issubclass(tokcask.BusyError, TimeoutError)
    assert issubclass(tokcask.ReadOnlyError, PermissionError)
    for error in (tokcask.BusyError, tokcask.DamagedError, tokcask.ReadOnlyError, tokcask.UnsupportedError):
        assert issubclass(error, OSError)
        assert error.__module__ == "tokcask"


def test_warnings_go_to_logging(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "store"
    with TokenizedCache.open(root) as cache:
        cache.put(key("a"), CachedTokens([1]))
    assert caplog.records == []
    (root / "data.mdb").write_bytes(b"not a store" * 1000)
    with caplog.at_level(logging.INFO, logger="tokcask"), TokenizedCache.open(root) as cache:
        assert cache.entry_count == 0
        assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].name == "tokcask"
    assert "store" in caplog.records[0].getMessage()
    assert list(tmp_path.rglob("*set-aside*"))
    assert capfd.readouterr().err == ""


def test_a_damaged_store_is_saved_and_a_damaged_record_repaired(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "store"
    with TokenizedCache.open(root) as cache:
        for name in "abc":
            cache.put(key(name), CachedTokens(list(range(2000))))
    data = bytearray((root / "data.mdb").read_bytes())
    data[0:4096] = bytes(4096)
    (root / "data.mdb").write_bytes(data)
    with caplog.at_level(logging.INFO, logger="tokcask"), TokenizedCache.open(root) as cache:
        assert "3 of 3 records saved" in caplog.records[0].getMessage()
        assert list(cache.get(key("b")).input_ids) == list(range(2000))
        report = cache.verify(repair=True)
        assert report.ok and not report.repaired

    data = bytearray((root / "data.mdb").read_bytes())
    data[data.index(np.arange(2000, dtype=np.int32).tobytes()) + 400] ^= 1
    (root / "data.mdb").write_bytes(data)
    with TokenizedCache.open(root, verify="always") as cache:
        assert not cache.verify().ok
        report = cache.verify(repair=True)
        assert (report.ok, report.repaired, report.saved, report.lost) == (True, True, 2, 1)
        assert report.kept_as == ""
        assert cache.verify().ok
        assert pickle.loads(pickle.dumps(cache)).verify().ok
    with pytest.raises(ValueError, match="first"):
        TokenizedCache.open(root, verify="sometimes")


def test_a_handler_that_raises_does_no_harm(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("handler")

    raised: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", raised.append)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(b"not a store" * 1000)
    handler = Handler()
    logging.getLogger("tokcask").addHandler(handler)
    try:
        TokenizedCache.open(tmp_path / "store").close()
    finally:
        logging.getLogger("tokcask").removeHandler(handler)
    assert [str(item.exc_value) for item in raised] == ["handler"]


def test_threads(cache: TokenizedCache) -> None:
    """Several threads put, get and flush at once; each finds what it put, and nothing else."""
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for n in range(150):
                name = key(f"{thread} {n}")
                assert cache.get(name) is None
                cache.put(name, CachedTokens(np.full(n, thread)))
                tokens = cache.get(name)
                assert tokens is not None and tokens.input_ids.tolist() == [thread] * n
                found = cache.get_many([name, key("absent")])
                assert found[0] == tokens and found[1] is None
        except BaseException as error:
            failures.append(error)

    def flush() -> None:
        try:
            while not done.is_set():
                cache.flush()
        except BaseException as error:
            failures.append(error)

    done = threading.Event()
    flusher = threading.Thread(target=flush)
    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for started in (flusher, *workers):
        started.start()
    for worker in workers:
        worker.join()
    done.set()
    flusher.join()
    assert failures == []
    assert cache.entry_count == 600
    assert (cache.hits, cache.misses) == (1200, 1200)


HOLD_WRITE_LOCK = """
import fcntl, os, struct, sys, time
with open(sys.argv[1] + "/write.lock", "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    file.write(struct.pack("<QQQ", os.getpid(), time.time_ns(), 0))
    file.flush()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_waiting_for_another_writer(tmp_path: pathlib.Path) -> None:
    """It has a limit, holds up no other thread, and loses nothing."""
    with TokenizedCache.open(tmp_path / "store", lock_timeout=1.0, batch_age=3600) as cache:
        cache.put(key("a"), CachedTokens([1]))
        cache.flush()
        command = [sys.executable, "-c", HOLD_WRITE_LOCK, str(tmp_path / "store")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdin is not None and other.stdout is not None
            assert other.stdout.readline() == "held\n"
            ticks = 0
            done = threading.Event()

            def count() -> None:
                nonlocal ticks
                while not done.wait(0.005):
                    ticks += 1

            counter = threading.Thread(target=count)
            counter.start()
            for write in (cache.flush, cache.clear, lambda: cache.prune(older_than_seconds=3600)):
                before = ticks
                cache.put(key("b"), CachedTokens([2]))
                with pytest.raises(tokcask.BusyError, match=str(other.pid)):
                    write()
                assert ticks - before > 10
            assert cache.get(key("a")) == CachedTokens([1])
            done.set()
            counter.join()
            other.stdin.close()
        cache.put(key("b"), CachedTokens([2]))
        cache.flush()
        assert cache.get(key("b")) == CachedTokens([2])


def in_child(work: Any) -> None:
    """Runs work() in a forked child, and fails if it fails there."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_fork(cache: TokenizedCache) -> None:
    cache.put(key("parent"), CachedTokens(np.arange(1000)))
    cache.flush()
    view = cache.get(key("parent"))
    assert view is not None

    def child() -> None:
        assert view.input_ids.tolist() == list(range(1000))
        again = cache.get(key("parent"))
        assert again is not None and again == view
        cache.put(key("child"), CachedTokens([7]))
        cache.flush()

    in_child(child)
    assert cache.get(key("child")) == CachedTokens([7])
    assert view.input_ids.tolist() == list(range(1000))


def test_fork_with_threads_at_work(cache: TokenizedCache) -> None:
    cache.put(key("k"), CachedTokens([1]))
    cache.flush()
    done = threading.Event()

    def work() -> None:
        n = 0
        while not done.is_set():
            cache.put(key(f"w{n % 50}"), CachedTokens([n]))
            cache.flush()
            n += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(10):
            in_child(lambda: (cache.get(key("k")).input_ids.tolist() == [1]) or os._exit(2))
    finally:
        done.set()
        worker.join()


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "cycle = [cache]; cycle.append(cycle); del cache",
        "import threading; threading.Thread(target=threading.Event().wait, args=(), daemon=True).start()",
        "import atexit; atexit.register(lambda: cache.put(key('b'), tokens))",
        "view = cache.get(key('a')); ids = view.input_ids",
    ],
)
def test_exit_without_close(tmp_path: pathlib.Path, ending: str) -> None:
    """What was put is kept, nothing hangs, and nothing is reported as leaked."""
    program = f"""
import sys, tokcask
def key(name):
    return tokcask.CacheKey(name, "ab" * 32, 100_000)
cache = tokcask.TokenizedCache.open(sys.argv[1])
tokens = tokcask.CachedTokens([1, 2, 3])
cache.put(key("a"), tokens)
{ending}
"""
    process = run_python(program, tmp_path / "store")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    with TokenizedCache.open(tmp_path / "store") as cache:
        assert cache.get(key("a")) == CachedTokens([1, 2, 3])
