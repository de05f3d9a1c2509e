"""tokcask.merge() and the installed command's merge."""

from __future__ import annotations

import json
import logging
import pathlib
import signal
import subprocess

import pytest
import tokcask
from tokcask import CachedTokens, TokenizedCache

from conftest import COMMAND, key


def fill(root: pathlib.Path, sections: range, first_id: int = 0) -> pathlib.Path:
    with TokenizedCache.open(root) as cache:
        cache.put_many((key(f"s{n}"), CachedTokens([first_id + n] * (n % 40))) for n in sections)
    return root


def test_merge(tmp_path: pathlib.Path) -> None:
    parts = [fill(tmp_path / "a", range(0, 60)), fill(tmp_path / "b", range(50, 100))]
    report = tokcask.merge(tmp_path / "out", parts)
    assert isinstance(report, tokcask.MergeReport)
    assert (report.entries, report.merged, report.already_there) == (110, 100, 10)
    assert (report.conflicts, report.damaged, report.declined, report.conflicting) == (0, 0, 0, [])
    assert "merged=100" in repr(report)
    with TokenizedCache.open(tmp_path / "out", read_only=True) as out:
        assert report.bytes_after == out.total_bytes
        assert out.entry_count == 100
        for n in range(100):
            tokens = out.get(key(f"s{n}"))
            assert tokens is not None
            assert tokens.input_ids.tolist() == [n] * (n % 40)
    assert tokcask.merge(str(tmp_path / "out"), iter(parts)).merged == 0


def test_conflicts_stay_as_they_are(tmp_path: pathlib.Path) -> None:
    first = fill(tmp_path / "a", range(0, 30))
    second = fill(tmp_path / "b", range(0, 30), first_id=1000)
    report = tokcask.merge(tmp_path / "out", [first, second])
    assert report.conflicts == 29
    assert len(report.conflicting) == 20
    assert str(key("s1")) in report.conflicting
    with TokenizedCache.open(tmp_path / "out", read_only=True) as out:
        tokens = out.get(key("s1"))
        assert tokens is not None
        assert tokens.input_ids.tolist() == [1]


def test_bad_arguments(tmp_path: pathlib.Path) -> None:
    store = fill(tmp_path / "a", range(3))
    with pytest.raises(ValueError, match="cannot be an input"):
        tokcask.merge(store, [store])
    with pytest.raises(ValueError, match="empty"):
        tokcask.merge(tmp_path / "out", [])
    with pytest.raises(FileNotFoundError):
        tokcask.merge(tmp_path / "out", [store, tmp_path / "absent"])
    with pytest.raises(ValueError, match="max_bytes"):
        tokcask.merge(tmp_path / "out", [store], max_bytes=5)
    with pytest.raises(TypeError):
        tokcask.merge(tmp_path / "out", [3])  # type: ignore[list-item]
    assert not (tmp_path / "out").exists()


def test_the_budget_is_kept_and_its_warning_logged(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with TokenizedCache.open(tmp_path / "a") as cache:
        cache.put_many((key(f"s{n}"), CachedTokens([n] * 3000)) for n in range(300))
    with caplog.at_level(logging.WARNING, logger="tokcask"):
        report = tokcask.merge(tmp_path / "out", [tmp_path / "a"], max_bytes=1 << 20)
    assert report.declined > 0
    assert report.merged + report.declined == 300
    assert "budget" in caplog.text
    assert (tmp_path / "out" / "data.mdb").stat().st_size <= 1 << 20
    # Not given, it is the one that the store was written with.
    assert tokcask.merge(tmp_path / "out", [tmp_path / "a"]).declined > 0


def test_a_signal_handler_that_raises_ends_it(tmp_path: pathlib.Path) -> None:
    fill(tmp_path / "a", range(60_000))

    def handler(*_: object) -> None:
        raise InterruptedError("enough")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(InterruptedError, match="enough"):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            tokcask.merge(tmp_path / "out", [tmp_path / "a"])
    finally:
        signal.signal(signal.SIGALRM, before)
    rest = tokcask.merge(tmp_path / "out", [tmp_path / "a"])
    assert rest.merged + rest.already_there == 60_000
    assert rest.merged > 0


def test_the_command(tmp_path: pathlib.Path) -> None:
    parts = [fill(tmp_path / "a", range(0, 60)), fill(tmp_path / "b", range(50, 100), first_id=7)]
    merge = [str(COMMAND), "merge", str(tmp_path / "out"), *map(str, parts), "--json"]
    done = subprocess.run(merge, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "have other tokens" in done.stderr
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert (document["entries"], document["merged"], document["conflicts"]) == (110, 100, 10)
