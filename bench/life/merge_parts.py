"""What merging parts costs: parts of random entries as a scale-out run makes them, merged as it merges them.

    python bench/life/merge_parts.py --parts 4x5000,16x6250,64x6250,128x3125

Each line is a merge in a process of its own into a new store. Lengths are log-normal and cut at 2,048 ids. Files are in
the page cache, as far as it holds them. See docs/scale-out.md.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import numpy as np
from tokcask import CachedTokens, CacheKey, TokenizedCache
from tokcask._parts import Parts

SHA = "c" * 64
NO_CAP = 1 << 40


def make_parts(store: pathlib.Path, count: int, entries: int, seed: int) -> int:
    """Returns the bytes of token ids."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 129_000, 1 << 18, dtype=np.int32)

    def part() -> Iterator[tuple[CacheKey, CachedTokens]]:
        lengths = np.clip(rng.lognormal(7.1, 1.0, entries), 1, 2048).astype(int)
        for length in lengths:
            begin = rng.integers(0, len(ids) - length)
            yield CacheKey(rng.bytes(8).hex(), SHA, 2048), CachedTokens(ids[begin : begin + length])

    payload = 0
    for number in range(count):
        root = store.with_name(f"{store.name}.parts") / f"{number:05d}-of-{count:05d}.{seed:08x}"
        with TokenizedCache.open(root, max_bytes=NO_CAP) as cache:
            cache.put_many(part())
            cache.flush()
            payload += cache.stats()["payload_bytes"]
    return payload


def own_memory() -> int:
    """Bytes that are not pages of mapped files."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def merge(store: pathlib.Path) -> dict[str, float]:
    before = own_memory()
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    merged = Parts(store).merge(NO_CAP)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "parts": merged.parts,
        "entries": merged.merged,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "own_mb": (peak[0] - before) / 1e6,
        "file_bytes": (store / "data.mdb").stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="4x5000,16x6250,64x6250,128x3125", help="PARTSxENTRIES,...")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", help="where the stores are made; default: a temporary directory")
    parser.add_argument("--merge", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.merge:
        print(json.dumps(merge(arguments.merge)))
        return
    print("parts  entries   ids, MB  store, MB  seconds  CPU s  entries/s  MB/s of ids  own memory, MB")
    for case in arguments.parts.split(","):
        count, entries = map(int, case.split("x"))
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            store = pathlib.Path(directory) / "store"
            payload = make_parts(store, count, entries, arguments.seed)
            command = [sys.executable, __file__, "--merge", str(store)]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            assert (result["parts"], result["entries"]) == (count, count * entries)
            print(
                f"{count:5d} {count * entries:8,d} {payload / 1e6:9,.0f} {result['file_bytes'] / 1e6:10,.0f} "
                f"{result['seconds']:8.2f} {result['cpu_seconds']:6.2f} {result['entries'] / result['seconds']:10,.0f} "
                f"{payload / 1e6 / result['seconds']:12.0f} {result['own_mb']:15.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
