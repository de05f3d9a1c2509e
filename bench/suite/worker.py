"""One rival in a process of its own, which measures what the harness asks for.

    python -m suite.worker RIVAL CORPUS

Reads commands, one JSON object a line, and answers each with one. Between `begin` and `end` they are carried out by
a child, forked for that after everything is imported: so each such session finds the rival as after a start, and
what goes wrong in it costs nobody else a figure.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import pathlib
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from rivals import rival_named
from rivals.base import Rival, fetch, ids_of
from torch.utils.data import DataLoader

from suite.corpus import PAD, Corpus

BATCH = 64


class WrongTokens(Exception):
    """A rival gave something else than was stored."""


def sampled(records: int, seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, records, count).tolist()


def checksum(rows: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.ascontiguousarray(row, dtype=np.int32))
    return digest.hexdigest()


class EndlessBatches:
    """A batch sampler: random batches until it is told to stop."""

    def __init__(self, records: int, seed: int) -> None:
        self._records = records
        self._random = np.random.default_rng(seed)
        self.stop = False

    def __iter__(self) -> Iterator[list[int]]:
        while not self.stop:
            yield self._random.integers(0, self._records, BATCH).tolist()


class Session:
    """The commands, as methods: each takes and gives what JSON has."""

    def __init__(self, rival: Rival, corpus: Corpus) -> None:
        self._rival = rival
        self._corpus = corpus
        self._directory = corpus.directory / rival.layout
        self._dataset: Any = None

    def _opened(self) -> Any:
        if self._dataset is None:
            self._dataset = self._rival.open(self._corpus, self._directory)
        return self._dataset

    def verify(self) -> dict[str, Any]:
        """Compares all items and some batches with the corpus. That also brings their pages into memory."""
        dataset, corpus = self._opened(), self._corpus
        read = self._rival.reader(dataset)
        count = len(dataset)
        if self._rival.blocks:
            tokens = sum(len(read(index)) for index in range(count))
            expected = hashlib.sha256(corpus.ids[:tokens].data).hexdigest()
        else:
            expected = corpus.about["sha256"]
            if count != len(corpus):
                raise WrongTokens(f"{count} items instead of {len(corpus)}")
        found = checksum(map(read, range(count)))
        if found != expected:
            raise WrongTokens("gives other tokens than were stored")
        if not self._rival.blocks and "batch" in self._rival.scenarios:
            self._verify_batches()
        return {"sha256": found, "items": count}

    def _verify_batches(self) -> None:
        collate_all = self._rival.collate_all()
        for number in range(5):
            indices = sampled(len(self._corpus), number, BATCH)
            rows = [self._corpus.row(index) for index in indices]
            lengths = np.array([len(row) for row in rows])
            ids = np.full((BATCH, lengths.max()), PAD, dtype=np.int64)
            for target, row in zip(ids, rows, strict=True):
                target[: len(row)] = row
            mask = np.arange(lengths.max()) < lengths[:, None]
            expected = {"input_ids": ids, "attention_mask": mask, "labels": np.where(mask, ids, -100)}
            made = ids_of(self._rival.collate_ids()(fetch(self._dataset, indices)))
            if made.dtype != torch.int64 or not np.array_equal(made.numpy(), ids):
                raise WrongTokens("makes another batch")
            if collate_all is not None:
                made_all = collate_all(fetch(self._dataset, indices))
                for name, values in expected.items():
                    if not np.array_equal(made_all[name].numpy(), values):
                        raise WrongTokens(f"makes other {name}")

    def whole_pass(self, everything: bool, number: int) -> dict[str, Any]:
        """Opens, and reads the first token of each item or sums all. Seconds, the opening included."""
        share = self._rival.share
        begin = time.perf_counter()
        dataset = self._opened()
        opened = time.perf_counter()
        read = self._rival.reader(dataset)
        total = 0
        for index in range(number % share, len(dataset), share):
            row = read(index)
            if len(row):
                total += int(row.sum(dtype=np.int64)) if everything else int(row[0])
        reading = (time.perf_counter() - opened) * share
        return {"seconds": opened - begin + reading, "open": opened - begin, "sum": total}

    def items(self, count: int, seed: int) -> dict[str, Any]:
        """Nanoseconds per random item. The ids are not touched."""
        dataset = self._opened()
        read = self._rival.reader(dataset)
        return {"ns": timed(read, sampled(len(dataset), seed, count)) / count}

    def batches(self, count: int, seed: int, everything: bool) -> dict[str, Any]:
        """Microseconds per batch of random items, padded to int64, by one thread."""
        dataset = self._opened()
        collate = self._rival.collate_all() if everything else self._rival.collate_ids()
        indices = sampled(len(dataset), seed, count * BATCH)
        batches = [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]
        return {"us": timed(lambda batch: collate(fetch(dataset, batch)), batches) / count / 1000}

    def loader(self, workers: int, seconds: float, seed: int) -> dict[str, Any]:
        """Batches per second that arrive from a DataLoader, after a third of the time to get warm."""
        dataset = self._opened()
        self._rival.reader(dataset)(0)
        self._rival.before_fork(dataset)
        sampler = EndlessBatches(len(dataset), seed)
        loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=self._rival.collate_ids(),
            multiprocessing_context="fork",
        )
        begin = time.perf_counter()
        start = last = 0.0
        count = 0
        for _ in loader:
            now = time.perf_counter()
            if start == 0.0:
                if now >= begin + seconds / 3:
                    start = now
            elif not sampler.stop:
                count += 1
                last = now
                sampler.stop = now >= start + seconds
        return {"batches_per_s": count / (last - start)}


def timed(act: Callable[[Any], Any], arguments: list[Any]) -> int:
    """Nanoseconds for all. Python's garbage collector rests, as in timeit."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter_ns()
        for argument in arguments:
            act(argument)
        return time.perf_counter_ns() - start
    finally:
        gc.enable()


def serve(rival: Rival, corpus: Corpus, commands: Any, answers: Any) -> None:
    session: Session | None = None  # in the child
    for line in iter(commands.readline, b""):
        command = json.loads(line)
        name = command.pop("do")
        answer: dict[str, Any] = {}
        if name == "begin":
            child = os.fork()
            if child == 0:
                session = Session(rival, corpus)
            else:
                _, status = os.waitpid(child, 0)
                if status == 0:
                    continue  # the child has answered `end`
                answer = {"error": f"its process ended with status {os.waitstatus_to_exitcode(status)}"}
        elif name != "end":
            try:
                answer = getattr(session, name)(**command)
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer).encode() + b"\n")
        if name == "end":
            os._exit(0)


def main() -> None:
    rival = rival_named(sys.argv[1])
    # What libraries print must not get among the answers.
    answers = open(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    commands = open(0, "rb", buffering=0)  # unbuffered: parent and child read it in turn
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    begin = time.perf_counter()
    reason = rival.unavailable()
    answer = {"unavailable": reason, "versions": {} if reason else rival.versions()}
    answer["import_seconds"] = time.perf_counter() - begin
    answers.write(json.dumps(answer).encode() + b"\n")
    if reason is None:
        serve(rival, Corpus(pathlib.Path(sys.argv[2])), commands, answers)
    os._exit(0)  # some libraries' threads take seconds to end


if __name__ == "__main__":
    main()
