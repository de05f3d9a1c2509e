"""The cache that tokcask was asked to replace, written anew from its specification: a compressed .npz file per
section, in shards, and a manifest.json. It does what the original does, in the same order with the same calls."""

from __future__ import annotations

import hashlib
import json
import pathlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class _Entry:
    key: str
    size: int
    last_access_ts: float
    shard: str
    filename: str
    tokenizer_sha: str


class SeedCache:
    """Keys are canonical strings; tokens are pairs of arrays, input_ids and attention_mask."""

    def __init__(self, root: pathlib.Path, max_bytes: int = 10 << 30) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._manifest: dict[str, _Entry] = {}
        self._touched: set[str] = set()
        (root / "entries").mkdir(parents=True, exist_ok=True)
        manifest = root / "manifest.json"
        if manifest.is_file():
            for key, row in json.loads(manifest.read_text())["entries"].items():
                self._manifest[key] = _Entry(
                    key=key,
                    size=int(row["size"]),
                    last_access_ts=float(row["last_access_ts"]),
                    shard=str(row["shard"]),
                    filename=str(row["filename"]),
                    tokenizer_sha=str(row["tokenizer_sha"]),
                )

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self._manifest.values())

    def _path(self, entry: _Entry) -> pathlib.Path:
        return self._root / "entries" / entry.shard / entry.filename

    def get(self, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        entry = self._manifest.get(key)
        if entry is None:
            return None
        path = self._path(entry)
        if not path.is_file():
            del self._manifest[key]
            return None
        with np.load(path) as data:
            tokens = (np.array(data["input_ids"], copy=True), np.array(data["attention_mask"], copy=True))
        entry.last_access_ts = time.time()
        self._touched.add(key)
        return tokens

    def put(self, key: str, input_ids: np.ndarray, attention_mask: np.ndarray) -> None:
        section, sha, length = key.split("|")
        name = hashlib.sha256(key.encode()).hexdigest()
        entry = _Entry(key, 0, 0.0, name[:2], f"{section}.{sha[:12]}.seq{length}.npz", sha)
        final = self._path(entry)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(final.name + ".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, input_ids=input_ids, attention_mask=attention_mask)
        entry.size = temporary.stat().st_size
        self._evict(entry.size)
        temporary.replace(final)
        entry.last_access_ts = time.time()
        self._manifest[key] = entry
        self._touched.add(key)

    def _evict(self, incoming: int) -> None:
        budget = self._max_bytes - incoming
        if self.total_bytes <= budget:  # summed at each put, as the original does
            return
        untouched = (entry for entry in self._manifest.values() if entry.key not in self._touched)
        for entry in sorted(untouched, key=lambda entry: entry.last_access_ts):
            if self.total_bytes <= budget:
                break
            self._path(entry).unlink(missing_ok=True)
            del self._manifest[entry.key]

    def save_manifest(self) -> None:
        rows: dict[str, dict[str, Any]] = {
            entry.key: {
                "size": entry.size,
                "last_access_ts": entry.last_access_ts,
                "shard": entry.shard,
                "filename": entry.filename,
                "tokenizer_sha": entry.tokenizer_sha,
            }
            for entry in self._manifest.values()
        }
        payload = {"version": 1, "total_bytes": self.total_bytes, "entries": rows}
        manifest = self._root / "manifest.json"
        temporary = manifest.with_suffix(".json.tmp")
        temporary.write_text(json.dumps(payload, sort_keys=True, indent=2) + "\n")
        temporary.replace(manifest)


class QuickFill(SeedCache):
    """For preparing only: fills without the sum at each put, which takes minutes with 50,000 entries."""

    def _evict(self, incoming: int) -> None:
        pass
