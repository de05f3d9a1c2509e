"""The stress test of the data loader: torch DataLoaders read a store while another process puts, replaces,
evicts at the cap, prunes and clears, and their workers are killed at random.

Each way to start workers, with 0, 1, 4 and 16 of them, persistent or not. What is checked, and fails:

  wrong   a row that is not one of its key's versions, byte for byte; one that is older than what was
          committed before it was asked for, or newer than what was put; a view that changed while it was
          held; an entry that is there and is not found, or the reverse, while the writer rests; an unequal
          tensor of tokcask.torch.collate; any warning of tokcask's, because a miss with one is damage
  hangs   no batch within 60 seconds; all stacks are printed
  leaked  a reader slot of LMDB's that still belongs to a dead process after the writer's next commit
  file    data.mdb above its cap, seen every 20 ms; a store that was set aside

Entries that are gone are legal; a `missing` callable makes their rows. The seed is printed first, and with
every failure. Without a seed of its own each run takes a new one.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.util
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from checking import COUNTS, Check, GetDataset, Watched, gone
from torch.utils.data import DataLoader, Dataset
from truth import key

HERE = pathlib.Path(__file__).resolve().parent
KEYS = 4000
# In one data set, whose entries are protected while it is open. The others are left to age, so that there is
# something to evict.
ITEMS = 2800
MAX_BYTES = 16 << 20
BATCH = 256
HANG_SECONDS = 60.0


# ---- The other processes ---------------------------------------------------------------------------------


class Failure(Exception):
    """Ends the program with one line."""


class WriterProcess:
    def __init__(self, store: pathlib.Path, ledger: pathlib.Path, seed: int, limit: float) -> None:
        command = [
            sys.executable, str(HERE / "writer.py"), str(store), str(ledger), "--keys", str(KEYS),
            "--max-bytes", str(MAX_BYTES), "--seed", str(seed), "--limit", str(limit),
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.totals = self._answer()

    def ask(self, command: str) -> dict[str, int]:
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        self.totals = self._answer()
        return self.totals

    def _answer(self) -> dict[str, int]:
        line = self._process.stdout.readline()
        if not line:
            raise Failure(f"the writer ended with {self._process.wait()}")
        return json.loads(line)

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()


# Run apart: a process that has the store open would lose its locks by opening it a second time.
READERS_PROGRAM = """
import lmdb, sys
with lmdb.open(sys.argv[1], readonly=True, create=False, max_dbs=2) as environment:
    print(environment.readers())
"""


def dead_readers(store: pathlib.Path) -> list[int]:
    """The processes that have a reader slot and do not run."""
    if shutil.which("mdb_stat"):
        command = ["mdb_stat", "-r", str(store)]
    else:
        command = [sys.executable, "-c", READERS_PROGRAM, str(store)]
    listing = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)
    if listing.returncode != 0:
        raise Failure(f"cannot list reader slots: {listing.stderr.strip()}")
    pids = {int(pid) for pid in re.findall(r"^ *(\d+) [0-9a-f]+ ", listing.stdout, re.MULTILINE)}
    return sorted(pid for pid in pids if not runs(pid))


def runs(pid: int) -> bool:
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


# ---- The process with the loaders ------------------------------------------------------------------------


class Monitor:
    """A thread that looks at the file's size, and for a hang."""

    def __init__(self, store: pathlib.Path, seed: int) -> None:
        self._data = store / "data.mdb"
        self._seed = seed
        self._patience = HANG_SECONDS
        self._end = threading.Event()
        self.what = "start"
        self.highest = 0
        self.on_hang: Callable[[], object] = lambda: None
        self._armed = 0.0
        self.progress()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def progress(self, patience: float = HANG_SECONDS) -> None:
        self._patience = patience
        self._last = time.monotonic()
        # Also ends if this process never lets go of the interpreter's lock. Costs a thread, so not each time.
        if self._last > self._armed + 5 or patience > HANG_SECONDS:
            self._armed = self._last
            faulthandler.dump_traceback_later(patience + 30, exit=True)

    def end(self) -> None:
        self._end.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            with contextlib.suppress(FileNotFoundError):
                self.highest = max(self.highest, self._data.stat().st_size)
            if time.monotonic() - self._last > self._patience:
                self._hang()

    def _hang(self) -> None:
        print(
            f"HANG (seed {self._seed}): {self.what}: no progress for {self._patience:.0f} s", file=sys.stderr
        )
        faulthandler.dump_traceback(all_threads=True)
        workers = list(multiprocessing.active_children())
        for signal_number in (signal.SIGUSR1, signal.SIGKILL):
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal_number)
            time.sleep(2)
        self.on_hang()
        os._exit(1)


class Epoch:
    """A batch sampler. Yields random batches until its time, which begins with the first batch that arrives.
    The last epoch ends with all items once, while the writer rests."""

    def __init__(self, randomness: random.Random, writer: WriterProcess) -> None:
        self._random = np.random.default_rng(randomness.randrange(1 << 32))
        self._writer = writer
        self.seconds = 0.0
        self.last = False
        self.kill = False
        self.began: float | None = None

    def __iter__(self) -> Iterator[list[int]]:
        while self.began is None or time.monotonic() < self.began + self.seconds:
            yield self._random.integers(0, ITEMS, BATCH).tolist()
        if self.last:
            self._writer.ask("rest")
            order = self._random.permutation(ITEMS)
            for start in range(0, ITEMS, BATCH):
                yield order[start : start + BATCH].tolist()


@dataclass(frozen=True)
class Combination:
    start: str
    workers: int
    persistent: bool

    @property
    def epoch_seconds(self) -> float:
        """Short, because only what was used before the oldest living run began can be evicted; longer where
        starting the workers takes longer than that."""
        return max(2.0, self.workers / 2) if self.start in ("spawn", "forkserver") else 2.0

    def __str__(self) -> str:
        if self.workers == 0:
            return "no workers"
        return f"{self.start}, {self.workers}, {'persistent' if self.persistent else 'new each epoch'}"


@dataclass
class Figures:
    """What a combination did."""

    reads: int = 0
    missing: int = 0
    wrong: int = 0
    exact: int = 0
    batches: int = 0
    epochs: int = 0
    kills: int = 0
    restarts: int = 0
    leaked: int = 0
    highest: int = 0
    seconds: float = 0.0
    writer: dict[str, int] = field(default_factory=dict)


ALL = [Combination("", 0, False)] + [
    Combination(*choice)
    for choice in itertools.product(("fork", "spawn", "forkserver"), (1, 4, 16), (False, True))
]
QUICK = [
    Combination("", 0, False),
    Combination("fork", 4, False),
    Combination("fork", 1, True),
    Combination("spawn", 1, False),
    Combination("forkserver", 4, True),
]


class Stress:
    def __init__(self, directory: pathlib.Path, seed: int, dataset: str, limit: float) -> None:
        self.seed = seed
        self._random = random.Random(seed)
        self._store = directory / "store"
        self._ledger = directory / "ledger"
        self._dataset: Callable[..., Dataset] = GetDataset
        self._collate: Callable | None = None
        if dataset == "tokcask":
            import tokcask.torch

            self._dataset = tokcask.torch.TokenDataset
            self._collate = tokcask.torch.collate
        self._keys = [key(number) for number in range(KEYS)]
        self.writer = WriterProcess(self._store, self._ledger, seed, limit)
        self.monitor = Monitor(self._store, seed)

    def end(self) -> None:
        self.writer.end()
        self.monitor.end()

    def run(self, combination: Combination, seconds: float, figures: Figures) -> None:
        """Some epochs with one combination. A worker is killed in the first and in some of the others, not in
        the last."""
        self.monitor.what = str(combination)
        self.monitor.highest = 0
        start = time.monotonic()
        before = self.writer.totals
        epochs = max(2, round(seconds / combination.epoch_seconds))
        others = set(multiprocessing.active_children())
        epoch = Epoch(self._random, self.writer)
        loader = None
        try:
            for number in range(epochs):
                epoch.seconds = seconds / epochs
                epoch.last = number == epochs - 1
                epoch.began = None
                epoch.kill = (
                    combination.workers > 0
                    and not epoch.last
                    and (number == 0 or self._random.random() < 0.3)
                )
                if loader is None or not combination.persistent:
                    loader = self._loader(combination, epoch)
                if not self._epoch(loader, epoch, combination, figures, others):
                    figures.restarts += 1
                    loader = None
        finally:
            self._kill_all(set(multiprocessing.active_children()) - others if loader is None else set())
            del loader
            self.writer.ask("resume")
        self.monitor.progress()
        self.writer.ask("commit")
        figures.leaked += len(dead_readers(self._store))
        figures.highest = max(figures.highest, self.monitor.highest)
        figures.seconds += time.monotonic() - start
        for name, total in self.writer.totals.items():
            figures.writer[name] = figures.writer.get(name, 0) + total - before[name]

    def _loader(self, combination: Combination, epoch: Epoch) -> DataLoader:
        numbers = np.array(self._random.sample(range(KEYS), ITEMS))
        tokens = self._dataset(self._store, [self._keys[number] for number in numbers], missing=gone)
        options: dict[str, Any] = {}
        if combination.workers > 0:
            context = multiprocessing.get_context(combination.start)
            if combination.start == "forkserver":
                context.set_forkserver_preload(["torch.utils.data", "tokcask", "numpy"])
            options = {"multiprocessing_context": context, "persistent_workers": combination.persistent}
        return DataLoader(
            Watched(tokens, numbers, self._ledger, KEYS),
            batch_sampler=epoch,
            num_workers=combination.workers,
            collate_fn=Check(self.seed, self._collate),
            **options,
        )

    def _epoch(
        self,
        loader: DataLoader,
        epoch: Epoch,
        combination: Combination,
        figures: Figures,
        others: set[Any],
    ) -> bool:
        """Whether it came to its end; it may not if a worker was killed."""
        figures.epochs += 1
        # A worker that is started anew imports torch first, on cores that it shares.
        self.monitor.progress(HANG_SECONDS + 10 * combination.workers)
        kill_at = epoch.seconds * self._random.uniform(0.1, 0.9) if epoch.kill else float("inf")
        killed = False
        iterator = None
        try:
            iterator = iter(loader)
            for counts in iterator:
                self.monitor.progress()
                now = time.monotonic()
                if epoch.began is None:
                    epoch.began = now
                figures.batches += 1
                for name, count in zip(COUNTS, counts, strict=True):
                    setattr(figures, name, getattr(figures, name) + count)
                if not killed and now >= epoch.began + kill_at:
                    workers = sorted(set(multiprocessing.active_children()) - others, key=lambda w: w.pid)
                    killed = True
                    figures.kills += 1
                    os.kill(self._random.choice(workers).pid, signal.SIGKILL)
            return not killed or not combination.persistent
        except RuntimeError as error:
            # Killed workers are torch's to notice, and it does so with one of two messages.
            if not killed or not re.search(r"DataLoader worker \(pid", str(error)):
                raise
            self._end_loader(iterator, set(multiprocessing.active_children()) - others)
            return False
        finally:
            self.monitor.progress(HANG_SECONDS + 10 * combination.workers)

    def _end_loader(self, iterator: Any, workers: set[Any]) -> None:
        """After a worker was killed. The others are killed too: one that died while it held the lock of the
        queue that they share would let them wait for ever. The event that tells them to end has such a lock,
        and torch sets it though nobody is left: so it gets another one. Torch raises from a signal handler when
        a worker ends, so that is set aside meanwhile."""
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            self._kill_all(workers)
            if iterator is not None:
                iterator._workers_done_event = multiprocessing.Event()
                iterator._shutdown_workers()
        finally:
            signal.signal(signal.SIGCHLD, handler)

    def _kill_all(self, workers: set[Any]) -> None:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join()


# ---- The report ------------------------------------------------------------------------------------------


def table(results: dict[Combination, Figures]) -> str:
    names = [
        "start, workers, persistent", "seconds", "reads", "batches", "missing", "wrong", "kills", "restarts",
        "leaked", "put", "declined", "evicted", "pruned", "cleared", "hindered", "file / cap",
    ]  # fmt: skip
    lines = [names]
    for combination, figures in results.items():
        writer = figures.writer
        counts = [figures.reads, figures.batches, figures.missing, figures.wrong, figures.kills]
        counts += [figures.restarts, figures.leaked]
        counts += [writer.get(names[column].replace("put", "puts"), 0) for column in range(9, len(names) - 1)]
        lines.append(
            [str(combination), f"{figures.seconds:.1f}", *(f"{count:,}" for count in counts)]
            + [f"{figures.highest / MAX_BYTES:.3f}"]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    rows = [
        "| "
        + " | ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        + " |"
        for line in lines
    ]
    rows.insert(1, "|" + "|".join(["---"] + ["--:"] * (len(names) - 1)) + "|")
    return "\n".join(rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="five combinations, under a minute: the gate's form"
    )
    parser.add_argument("--seconds", type=float, default=None, help="go round all combinations for that long")
    parser.add_argument("--reads", type=int, default=0, help="... and until that many rows were read")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--with",
        dest="dataset",
        choices=("tokcask", "get"),
        default="tokcask" if importlib.util.find_spec("tokcask.torch") else "get",
        help="tokcask.torch.TokenDataset (if there is one), or a plain data set over TokenizedCache.get_many",
    )
    parser.add_argument(
        "--directory",
        type=pathlib.Path,
        metavar="DIR",
        help="where to make the store (a temporary directory)",
    )
    arguments = parser.parse_args()
    if arguments.quick and (arguments.seconds is not None or arguments.reads):
        parser.error("--quick has its own length")
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1 << 31)
    return arguments


def slices(
    arguments: argparse.Namespace, results: dict[Combination, Figures]
) -> Iterator[tuple[Combination, float]]:
    """Which combination runs next, and for how long."""
    if arguments.quick:
        yield from ((combination, 4.0) for combination in QUICK)
        return
    seconds = 300.0 if arguments.seconds is None else arguments.seconds
    start = time.monotonic()
    each = min(30.0, max(6.0, 0.7 * seconds / len(ALL)))
    for combination in itertools.cycle(ALL):
        complete = len(results) == len(ALL)
        reads = sum(figures.reads for figures in results.values())
        if complete and time.monotonic() - start >= seconds and reads >= arguments.reads:
            return
        yield combination, each


def report(results: dict[Combination, Figures], failures: list[str], seed: int, hangs: int = 0) -> int:
    """Prints what was done and returns the exit code."""
    reads, wrong, leaked, exact, highest = (
        [getattr(figures, name) for figures in results.values()]
        for name in ("reads", "wrong", "leaked", "exact", "highest")
    )
    print(table(results))
    print(f"{sum(exact):,} rows were asked for while the writer rested, and compared with what is stored")
    if max(highest, default=0) > MAX_BYTES:
        failures = [*failures, f"data.mdb had {max(highest):,} bytes, {MAX_BYTES:,} are allowed"]
    if sum(exact) == 0:
        failures = [*failures, "nothing was read while the writer rested"]
    failed = bool(failures or sum(wrong) or hangs or sum(leaked))
    if failed:
        print(f"FAILED with seed {seed}: {'; '.join(failures) or 'see above'}", file=sys.stderr)
    print(
        f"{sum(reads)} reads, {sum(wrong)} wrong, {hangs} hangs, {sum(leaked)} leaked reader slots",
        flush=True,
    )
    return int(failed)


def run(arguments: argparse.Namespace, directory: pathlib.Path) -> int:
    results: dict[Combination, Figures] = {}
    failures: list[str] = []
    limit = 600.0 + 3 * (arguments.seconds or 300.0) + arguments.reads / 1000
    stress = Stress(directory, arguments.seed, arguments.dataset, limit)
    stress.monitor.on_hang = lambda: report(results, failures, arguments.seed, hangs=1)
    start = time.monotonic()
    try:
        for combination, seconds in slices(arguments, results):
            stress.run(combination, seconds, results.setdefault(combination, Figures()))
            if not arguments.quick:
                total = sum(figures.reads for figures in results.values())
                done = f"[{time.monotonic() - start:5.0f} s] {combination}: {total:,} reads in all"
                print(done, file=sys.stderr, flush=True)
    except Exception as error:
        traceback.print_exc()
        failures.append(f"{type(error).__name__} in '{stress.monitor.what}'")
    finally:
        stress.end()
    if stress.writer.totals["warnings"]:
        failures.append(f"{stress.writer.totals['warnings']} warnings in the writer")
    aside = sorted(path.name for path in (directory / "store").glob("*.set-aside-*"))
    if aside:
        failures.append(f"set aside: {', '.join(aside)}")
    return report(results, failures, arguments.seed)


def main() -> int:
    arguments = parse_arguments()
    print(f"seed {arguments.seed}, reads by {arguments.dataset}", flush=True)
    warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="loader-stress-", dir=arguments.directory) as directory:
        return run(arguments, pathlib.Path(directory))


if __name__ == "__main__":
    sys.exit(main())
