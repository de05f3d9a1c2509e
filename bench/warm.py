"""How much of the tokenizer library's own batch speed is left when tokcask reads, tokenizes and stores.

    python bench/warm.py CORPUS --tokenizer tokenizer.json [--include '*.py'] [--seq-len 2048] [--rounds 7]

Every way does the same texts on all cores, in turn, round after round; a figure is the median of the rounds. What
is stored is compared with the library's ids once. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from typing import Any

import tokenizers
import tokcask
import transformers
from tokcask import CacheKey, TokenizedCache, pretokenize_rows, section_id, tokenizer_sha256

# What a way costs whatever the corpus: the identity of the tokenizer, and a process that loads it.
FIXED = {"pretokenize_rows": "one row", "tokcask warm": "one small file"}
COMMAND = pathlib.Path(sysconfig.get_path("scripts")) / "tokcask"


def texts_of(corpus: pathlib.Path, include: str, megabytes: float) -> list[str]:
    """The files that `tokcask warm` would tokenize, each content once, in an order that mixes them."""
    contents = {}
    files = sorted(corpus.rglob(include))
    random.Random(0).shuffle(files)
    size = 0
    for file in files:
        if size >= megabytes * 1e6:
            break
        if file.is_file() and not file.is_symlink():
            try:
                contents[file.read_bytes().decode()] = None
                size += file.stat().st_size
            except (UnicodeDecodeError, OSError):
                continue
    return [text for text in contents if text and "\0" not in text]


class Bench:
    def __init__(self, arguments: argparse.Namespace, directory: pathlib.Path) -> None:
        self.directory = directory
        self.length = arguments.seq_len
        self.file = arguments.tokenizer
        self.backend = tokenizers.Tokenizer.from_file(str(self.file))
        self.backend.enable_truncation(self.length)
        self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=self.backend)
        self.texts = texts_of(arguments.corpus, arguments.include, arguments.megabytes)
        self.corpus = directory / "corpus"
        self.nothing = directory / "nothing"
        for folder, texts in ((self.corpus, self.texts), (self.nothing, ["text"])):
            for number, text in enumerate(texts):
                file = folder / str(number // 1000) / f"{number}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, newline="")
        self.stores = 0

    def store(self) -> pathlib.Path:
        self.stores += 1
        return self.directory / f"store-{self.stores}"

    def encode_batch(self) -> None:
        self.backend.encode_batch(self.texts)

    def encode_batch_fast(self) -> None:
        self.backend.encode_batch_fast(self.texts)

    def call(self) -> None:
        self.tokenizer(self.texts, truncation=True, padding=False, max_length=self.length)

    def pretokenize(self, count: int | None = None) -> None:
        with TokenizedCache.open(self.store()) as cache:
            rows = [{"text": text} for text in self.texts[:count]]
            pretokenize_rows(rows, tokenizer=self.tokenizer, sequence_len=self.length, cache=cache)

    def warm(self, corpus: pathlib.Path | None = None) -> dict[str, Any]:
        command = [COMMAND, "warm", self.store(), corpus or self.corpus, "--tokenizer", self.file]
        command += ["--seq-len", self.length, "--json"]
        done = subprocess.run(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    def pretokenize_one(self) -> None:
        self.pretokenize(1)

    def warm_one(self) -> None:
        self.warm(self.nothing)

    def check(self) -> int:
        """That the store holds the library's ids. Returns how many there are."""
        assert self.warm()["misses"] == len(self.texts)
        sha = tokenizer_sha256(self.backend)
        keys = [CacheKey(section_id(text, "file"), sha, self.length) for text in self.texts]
        with TokenizedCache.open(self.directory / f"store-{self.stores}", read_only=True) as cache:
            found = cache.get_many(keys)
        count = 0
        for tokens, encoding in zip(found, self.backend.encode_batch(self.texts), strict=True):
            assert tokens is not None and tokens.input_ids.tolist() == encoding.ids
            count += len(encoding.ids)
        return count


def timed(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--include", default="*")
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--megabytes", type=float, default=20, help="stop after so many (20)")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"

    with tempfile.TemporaryDirectory(prefix="tokcask-bench-") as directory:
        bench = Bench(arguments, pathlib.Path(directory))
        tokens = bench.check()
        ways = {
            "encode_batch": bench.encode_batch,
            "encode_batch_fast": bench.encode_batch_fast,
            "a transformers tokenizer": bench.call,
            "pretokenize_rows": bench.pretokenize,
            "pretokenize_rows, one row": bench.pretokenize_one,
            "tokcask warm": bench.warm,
            "tokcask warm, one small file": bench.warm_one,
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(arguments.rounds + 1):
            for name, way in ways.items():
                taken = timed(way)
                if number:  # the first turn brings everything into memory
                    seconds[name].append(taken)
            print(f"round {number}", file=sys.stderr)
    for name, start in FIXED.items():
        seconds[f"{name}, without {start}"] = [
            whole - fixed for whole, fixed in zip(seconds[name], seconds.pop(f"{name}, {start}"), strict=True)
        ]

    size = sum(len(text.encode()) for text in bench.texts)
    print(f"{len(bench.texts):,} texts, {size:,} bytes, {tokens:,} tokens at {arguments.seq_len}; ")
    print(f"{arguments.rounds} rounds; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"tokenizers {tokenizers.__version__}, tokcask {tokcask.__version__}, {platform.platform()}\n")
    print("| way | seconds, median | least | greatest | of encode_batch | of encode_batch_fast |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, taken in seconds.items():
        shares = [
            statistics.median(a / b for a, b in zip(seconds[base], taken, strict=True))
            for base in ("encode_batch", "encode_batch_fast")
        ]
        print(
            f"| {name} | {statistics.median(taken):.2f} | {min(taken):.2f} | {max(taken):.2f} "
            f"| {shares[0]:.2f} | {shares[1]:.2f} |"
        )


if __name__ == "__main__":
    main()
