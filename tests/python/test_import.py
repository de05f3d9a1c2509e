"""The installed command's import-npz over a cache that NumPy wrote, as the seed writes it."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import time
from typing import Any

import numpy as np
import pytest
from tokcask import CacheKey, TokenizedCache

from conftest import COMMAND

SHA = hashlib.sha256(b"tokenizer").hexdigest()


class SeedCache:
    """put() and save_manifest() do to the disk what the seed's do."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.manifest: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}
        (root / "entries").mkdir(parents=True)

    def put(self, key: CacheKey, ids: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> None:
        shard, filename = (
            key.section_id[:2],
            f"{key.section_id}-{key.tokenizer_sha[:12]}-{key.sequence_len}.npz",
        )
        directory = self.root / "entries" / shard
        directory.mkdir(parents=True, exist_ok=True)
        temporary = directory / f"{filename}.tmp"
        with temporary.open("wb") as file:
            np.savez_compressed(file, input_ids=ids, attention_mask=mask)
        size = temporary.stat().st_size
        temporary.replace(directory / filename)
        self.manifest[str(key)] = {
            "size": size,
            "last_access_ts": time.time() - 3600 + len(self.manifest),
            "shard": shard,
            "filename": filename,
            "tokenizer_sha": key.tokenizer_sha,
        }
        self.tokens[str(key)] = ids, mask

    def save_manifest(self) -> None:
        payload = {
            "version": 1,
            "tokenizer_sha256": SHA,
            "total_bytes": sum(row["size"] for row in self.manifest.values()),
            "entries": self.manifest,
        }
        text = json.dumps(payload, sort_keys=True, indent=2) + "\n"
        (self.root / "manifest.json").write_text(text, encoding="utf-8")

    def fill(self, count: int) -> None:
        rng = np.random.default_rng(0)
        for n in range(count):
            dtype = ["<i8", "<i8", "<i4", "<u2", ">i4"][n % 5]
            length = int(rng.integers(0, 600))
            ids = rng.integers(0, 60_000, length).astype(dtype)
            mask = np.ones(length, dtype=np.int64)
            if n % 7 == 0:
                mask[: length // 2] = 0
            section = hashlib.sha256(str(n).encode()).hexdigest()[:16]
            self.put(CacheKey(section, SHA, 4096), ids, mask)
        self.save_manifest()

    def files(self) -> dict[pathlib.Path, bytes]:
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def seed(tmp_path: pathlib.Path) -> SeedCache:
    return SeedCache(tmp_path / "cache")


def run(*arguments: object, code: int = 0) -> Any:
    done = subprocess.run(
        [str(COMMAND), *map(str, arguments), "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def assert_imported(seed: SeedCache, store: pathlib.Path) -> None:
    with TokenizedCache.open(store, read_only=True) as cache:
        assert cache.entry_count == len(seed.tokens)
        for key, (ids, mask) in seed.tokens.items():
            section, sha, length = key.split("|")
            tokens = cache.get(CacheKey(section, sha, int(length)))
            assert tokens is not None, key
            np.testing.assert_array_equal(tokens.input_ids, ids)
            np.testing.assert_array_equal(tokens.attention_mask, mask)
        assert cache.verify().ok


def test_everything_is_imported_and_nothing_changed(seed: SeedCache, tmp_path: pathlib.Path) -> None:
    seed.fill(300)
    before = seed.files()
    document = run("import-npz", seed.root, tmp_path / "store")
    assert (document["entries"], document["imported"]) == (300, 300)
    assert document["missing"] + document["damaged"] + document["malformed"] + document["orphans"] == 0
    assert_imported(seed, tmp_path / "store")
    assert seed.files() == before
    with TokenizedCache.open(tmp_path / "store") as cache:
        assert cache.stats()["tokenizer_sha"] == SHA


def test_entries_keep_their_last_access(seed: SeedCache, tmp_path: pathlib.Path) -> None:
    seed.fill(300)
    run("import-npz", seed.root, tmp_path / "store")
    with TokenizedCache.open(tmp_path / "store") as cache:
        # It was an hour ago and later, a second apart in the order of the puts.
        assert cache.prune(older_than_seconds=3600 - 100.5) in range(95, 130)


def test_real_archives_that_were_damaged(seed: SeedCache, tmp_path: pathlib.Path) -> None:
    seed.fill(60)
    rng = random.Random(1)
    paths = sorted(seed.root.rglob("*.npz"))
    for path in paths[:40]:
        content = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
    document = run("import-npz", seed.root, tmp_path / "store")
    refused = document["damaged"] + document["malformed"]
    assert refused >= 15
    assert document["imported"] + refused == 60
    # Whatever was let through is what was written: a bit of a time stamp may have been hit.
    with TokenizedCache.open(tmp_path / "store", read_only=True) as cache:
        for key in cache.keys():
            tokens = cache.get(key)
            assert tokens is not None
            np.testing.assert_array_equal(tokens.input_ids, seed.tokens[str(key)][0])


def test_what_numpy_can_write_and_an_entry_cannot_be(seed: SeedCache, tmp_path: pathlib.Path) -> None:
    def key(name: str) -> CacheKey:
        return CacheKey(name, SHA, 4096)

    ones = np.ones(4, dtype=np.int64)
    seed.put(key("floats"), np.ones(4), ones)
    seed.put(key("matrix"), np.ones((2, 2), dtype=np.int64), ones)
    seed.put(key("column"), np.asfortranarray(np.ones((2, 2), dtype=np.int64)), ones)
    seed.put(key("scalar"), np.int64(4), ones)  # type: ignore[arg-type]
    seed.put(key("large"), np.array([2**31], dtype=np.int64), ones[:1])
    seed.put(key("unequal"), ones, ones[:3])
    seed.put(key("objects"), np.array([None, 1], dtype=object), ones[:2])
    seed.put(key("bools"), np.ones(4, dtype=bool), ones)
    seed.tokens.clear()
    seed.put(key("good"), ones, ones)
    seed.save_manifest()
    document = run("import-npz", seed.root, tmp_path / "store")
    assert (document["imported"], document["malformed"], document["damaged"]) == (1, 8, 0)
    assert len(document["malformed_entries"]) == 8
    assert_imported(seed, tmp_path / "store")


def test_an_import_killed_at_any_moment_goes_on(seed: SeedCache, tmp_path: pathlib.Path) -> None:
    seed.fill(400)
    rng = random.Random(os.environ.get("TOKCASK_TEST_SEED"))
    started = time.monotonic()
    run("import-npz", seed.root, tmp_path / "whole")
    takes = time.monotonic() - started
    for _ in range(6):
        process = subprocess.Popen(
            [str(COMMAND), "import-npz", str(seed.root), str(tmp_path / "store")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.random() * takes)
        process.send_signal(signal.SIGKILL)
        process.wait()
    rest = run("import-npz", seed.root, tmp_path / "store")
    assert rest["imported"] + rest["already_there"] == 400
    assert_imported(seed, tmp_path / "store")
