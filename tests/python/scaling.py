"""What the tests of tokcask.datatrove and tokcask.ray share: a corpus, a tokenizer that keeps a log, and the truth."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import tokenizers
from tokcask import TokenizedCache, pretokenize_rows, tokenizer_sha256

LENGTH = 24
STALL = "this one takes for ever"
# Texts of each file: one has several batches of a thousand.
SIZES = [400, 2500, 400, 400]

# How the programs under test begin.
PROGRAM = """
import pathlib, sys
from scaling import LENGTH, Logged
here = pathlib.Path(sys.argv[1])
tokenizer = Logged(here)
"""


class Logged:
    """A real tokenizer that writes down each text. In a directory with a file `stall` one text takes for ever."""

    def __init__(self, here: pathlib.Path) -> None:
        self.here = here
        self.json = (here / "tokenizer.json").read_text()
        self.sha256 = tokenizer_sha256(tokenizers.Tokenizer.from_str(self.json))

    def encode_batch(self, texts: Any, max_length: int) -> list[Any]:
        (self.here / "log").mkdir(exist_ok=True)
        with (self.here / "log" / str(os.getpid())).open("a") as log:
            log.writelines(text + "\n" for text in texts)
        if STALL in texts and (self.here / "stall").exists():
            (self.here / "stall").rename(self.here / f"stalled-{os.getpid()}")
            time.sleep(600)
        backend = tokenizers.Tokenizer.from_str(self.json)
        return [encoding.ids[:max_length] for encoding in backend.encode_batch_fast(list(texts))]


def make_corpus(here: pathlib.Path, tokenizer_json: str) -> dict[str, list[str]]:
    """Texts by their file. The first ten are the same in all; the one that takes for ever is near the end of one."""
    (here / "tokenizer.json").write_text(tokenizer_json)
    (here / "corpus").mkdir()
    corpus = {
        f"{file}.jsonl": [
            f"common {number}" if number < 10 else f"file {file} text {number} " + "word " * (number % 30)
            for number in range(size)
        ]
        for file, size in enumerate(SIZES)
    }
    corpus["1.jsonl"][-300] = STALL
    for name, texts in corpus.items():
        lines = (json.dumps({"text": text, "id": str(n)}) + "\n" for n, text in enumerate(texts))
        (here / "corpus" / name).write_text("".join(lines))
    return corpus


def texts_of(corpus: dict[str, list[str]]) -> list[str]:
    return [text for texts in corpus.values() for text in texts]


def contents(store: pathlib.Path) -> dict[str, tuple[list[int], list[int]]]:
    with TokenizedCache.open(store, read_only=True, derive_lengths=False) as cache:
        assert cache.verify().ok
        keys = list(cache.keys())
        found = cache.get_many(keys)
        assert all(tokens is not None for tokens in found)
        return {
            str(key): (tokens.input_ids.tolist(), tokens.attention_mask.tolist())
            for key, tokens in zip(keys, found, strict=True)
        }


def by_one_process(
    here: pathlib.Path, corpus: dict[str, list[str]]
) -> dict[str, tuple[list[int], list[int]]]:
    with TokenizedCache.open(here / "truth" / "store") as cache:
        (here / "truth" / "tokenizer.json").write_text((here / "tokenizer.json").read_text())
        rows = ({"text": text} for text in texts_of(corpus))
        pretokenize_rows(rows, tokenizer=Logged(here / "truth"), sequence_len=LENGTH, cache=cache)
    truth = contents(here / "truth" / "store")
    assert len(truth) == len(set(texts_of(corpus)))
    assert any(len(ids) == LENGTH for ids, _ in truth.values())
    return truth


def tokenized(here: pathlib.Path) -> Counter[str]:
    """How often each text was."""
    logs = (here / "log").glob("*")
    return Counter(text for log in logs for text in log.read_text().splitlines())


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, what
        time.sleep(0.01)
    return found


def stalled(here: pathlib.Path) -> int:
    """Waits for the process that stalls; its id."""
    (path,) = wait_until(lambda: list(here.glob("stalled-*")), "nothing stalls")
    return int(path.name.removeprefix("stalled-"))


@contextlib.contextmanager
def started(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A program in a session of its own, which is killed with all its processes at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},  # of workers too
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(program: str, *arguments: object) -> str:
    with started(program, *arguments) as process:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out
        return out
