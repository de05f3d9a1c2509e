"""Times reading tokens for training, beside rivals, in one run, over the same tokens.

  item     one item in random order
  batch    64 random items as one padded int64 tensor, and with attention mask and labels
  loader   a DataLoader with worker processes
  memory   (--memory) what each further worker costs, with a million keys

What is made is compared between rivals before it is timed. Rounds are interleaved: each rival in turn, then
all again; a figure is the median of its rounds, with the least and the greatest. The tables go to standard
output as Markdown, all rounds to a file with --json. A rival that is not installed is listed with the reason.
See bench/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import hashlib
import json
import multiprocessing
import os
import pathlib
import pickle
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from corpus import PAD, Corpus, make, take
from rivals import MEGATRON_VARIABLE, RIVALS, Rival, fetch, ids_of
from torch.utils.data import DataLoader

BUILD = pathlib.Path(__file__).resolve().parent.parent / "build"
BATCH = 64
MEMORY_RECORDS = 1_000_000
MEMORY_WORKERS = 4
MEMORY_READS = 20_000


@dataclass(frozen=True)
class Size:
    """How much a round measures."""

    records: int
    items: int
    batches: int
    seconds: float
    """Of a DataLoader, after a quarter of it to get warm."""


FULL = Size(records=50_000, items=20_000, batches=200, seconds=2.0)
QUICK = Size(records=5_000, items=4_000, batches=30, seconds=0.3)


class Failure(Exception):
    """Ends the program with one line."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- Preparing -------------------------------------------------------------------------------------------


def prepared(corpus: Corpus, rival: Rival) -> pathlib.Path:
    """The rival's files. They are made once: the folder gets its name when it is complete."""
    directory = corpus.directory / rival.layout
    if not directory.is_dir():
        partial = directory.with_name(rival.layout + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        say(f"preparing {len(corpus):,} records for {rival.layout}")
        rival.prepare(corpus, partial)
        partial.rename(directory)
    return directory


def find_corpus(directory: pathlib.Path, name: str, fill: Callable[[pathlib.Path], None]) -> Corpus:
    """The corpus `name` below `directory`, made by fill() if it is not there."""
    path = directory / name
    if not (path / "about.json").is_file():
        shutil.rmtree(path, ignore_errors=True)
        say(f"making the corpus {name}")
        fill(path)
    return Corpus(path)


def sampled(corpus: Corpus, seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, len(corpus), count).tolist()


def checksum(rows: Iterator[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(np.ascontiguousarray(row, dtype=np.int32))
        digest.update(b"|")
    return digest.hexdigest()


class Contestant:
    """A rival with its data set open in this process."""

    def __init__(self, rival: Rival, corpus: Corpus) -> None:
        self.rival = rival
        self.name = rival.name
        self.dataset = rival.open(corpus, prepared(corpus, rival))
        self.collate_ids = rival.collate_ids()
        self.collate_all = rival.collate_all()

    def verify(self, corpus: Corpus) -> None:
        """Compares all items and some batches with the corpus. That also brings their pages into memory."""
        read = self.rival.reader(self.dataset)
        everything = range(len(corpus))
        if checksum(map(read, everything)) != checksum(map(corpus.row, everything)):
            raise Failure(f"{self.name} gives other tokens than were stored")
        for number in range(5):
            indices = sampled(corpus, number, BATCH)
            rows = [corpus.row(index) for index in indices]
            lengths = np.array([len(row) for row in rows])
            ids = np.full((BATCH, lengths.max()), PAD, dtype=np.int64)
            for target, row in zip(ids, rows, strict=True):
                target[: len(row)] = row
            mask = np.arange(lengths.max()) < lengths[:, None]
            expected = {"input_ids": ids, "attention_mask": mask, "labels": np.where(mask, ids, -100)}
            made = ids_of(self.collate_ids(fetch(self.dataset, indices)))
            if made.dtype != torch.int64 or not np.array_equal(made.numpy(), ids):
                raise Failure(f"{self.name} makes another batch")
            if self.collate_all is not None:
                made_all = self.collate_all(fetch(self.dataset, indices))
                for name, values in expected.items():
                    if not np.array_equal(made_all[name].numpy(), values):
                        raise Failure(f"{self.name} makes other {name}")


# ---- Timing ----------------------------------------------------------------------------------------------

Rounds = dict[str, list[float]]


def interleave(
    contestants: list[Contestant], rounds: int, measure: Callable[[Contestant, int], float]
) -> Rounds:
    """measure() of each in turn, `rounds` times; one turn before does not count."""
    results: Rounds = {contestant.name: [] for contestant in contestants}
    for number in range(-1, rounds):
        for contestant in contestants:
            gc.collect()
            gc.disable()
            try:
                figure = measure(contestant, number)
            finally:
                gc.enable()
            if number >= 0:
                results[contestant.name].append(figure)
    return results


def time_items(contestants: list[Contestant], corpus: Corpus, size: Size, rounds: int, seed: int) -> Rounds:
    """Nanoseconds per item. The ids are not touched."""

    def measure(contestant: Contestant, number: int) -> float:
        read = contestant.rival.reader(contestant.dataset)
        indices = sampled(corpus, seed + number + 1, size.items)
        start = time.perf_counter_ns()
        for index in indices:
            read(index)
        return (time.perf_counter_ns() - start) / size.items

    return interleave(contestants, rounds, measure)


def time_batches(
    contestants: list[Contestant], corpus: Corpus, size: Size, rounds: int, seed: int, everything: bool
) -> Rounds:
    """Microseconds per batch, by this process, with one thread."""

    def measure(contestant: Contestant, number: int) -> float:
        collate = contestant.collate_all if everything else contestant.collate_ids
        dataset = contestant.dataset
        indices = sampled(corpus, seed + number + 1, size.batches * BATCH)
        batches = [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]
        start = time.perf_counter_ns()
        for batch in batches:
            collate(fetch(dataset, batch))
        return (time.perf_counter_ns() - start) / size.batches / 1000

    return interleave(contestants, rounds, measure)


class EndlessBatches:
    """A batch sampler: random batches until it is told to stop."""

    def __init__(self, records: int, seed: int) -> None:
        self._records = records
        self._random = np.random.default_rng(seed)
        self.stop = False

    def __iter__(self) -> Iterator[list[int]]:
        self.stop = False
        while not self.stop:
            yield self._random.integers(0, self._records, BATCH).tolist()


def time_loaders(
    contestants: list[Contestant], corpus: Corpus, size: Size, rounds: int, seed: int, workers: int
) -> Rounds:
    """Batches per second that arrive from a DataLoader whose workers live through all rounds."""
    for contestant in contestants:
        contestant.rival.before_fork(contestant.dataset)
    samplers = {contestant.name: EndlessBatches(len(corpus), seed) for contestant in contestants}
    loaders = {
        contestant.name: DataLoader(
            contestant.dataset,
            batch_sampler=samplers[contestant.name],
            num_workers=workers,
            collate_fn=contestant.collate_ids,
            persistent_workers=True,
            multiprocessing_context="fork",
        )
        for contestant in contestants
    }

    def measure(contestant: Contestant, number: int) -> float:
        sampler = samplers[contestant.name]
        begin = time.perf_counter()
        start = last = 0.0
        count = 0
        for _ in loaders[contestant.name]:
            now = time.perf_counter()
            if start == 0.0:
                if now >= begin + size.seconds / 4:
                    start = now
            elif not sampler.stop:
                count += 1
                last = now
                sampler.stop = now >= start + size.seconds
        return count / (last - start)

    return interleave(contestants, rounds, measure)


# ---- Memory ----------------------------------------------------------------------------------------------


def memory_of(process: int) -> dict[str, int]:
    """Proportional set size in KiB, and its part that is not of files."""
    fields = {}
    for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        fields[name] = int(value.split()[0])
    return {"pss": fields["Pss"], "anonymous": fields["Pss_Anon"]}


def memory_worker(name: str | None, data: Any, commands: Any) -> None:
    """Goes a stage further at each command: imports, has the data set, has read from it."""
    rival = next((rival for rival in RIVALS if rival.name == name), None)
    commands.recv()
    if rival is not None:
        rival.load()
    commands.send("imported")
    commands.recv()
    dataset = pickle.loads(data.read_bytes()) if isinstance(data, pathlib.Path) else data
    if dataset is not None:
        dataset[0]
    commands.send("open")
    commands.recv()
    # An empty worker too, so that making the indices is not counted.
    records = dataset if dataset is not None else range(MEMORY_RECORDS)
    for index in np.random.default_rng(os.getpid()).integers(0, len(records), MEMORY_READS).tolist():
        records[index]
    commands.send("read")
    commands.recv()


def measure_memory(name: str | None, start: str, path: pathlib.Path) -> dict[str, Any]:
    """In a process of its own. The mean of the workers at each stage, and with their parent at the end."""
    rival = next((rival for rival in RIVALS if rival.name == name), None)
    dataset = None
    if rival is not None:
        rival.load()
        dataset = rival.open(Corpus(path), path / rival.layout)
    # Fork hands over the data set itself. The others pickle it, here through a file, so that the bytes do not
    # stay in the worker's memory: a DataLoader's do not either.
    with tempfile.NamedTemporaryFile(prefix="bench-loader-") as file:
        file.write(pickle.dumps(dataset))
        file.flush()
        gc.collect()
        stages = measure_workers(name, start, dataset if start == "fork" else pathlib.Path(file.name))
        return stages | {"pickled": os.stat(file.name).st_size}


def measure_workers(name: str | None, start: str, data: Any) -> dict[str, Any]:
    context = multiprocessing.get_context(start)
    pipes, processes = [], []
    alone = memory_of(os.getpid())
    for _ in range(MEMORY_WORKERS):
        ours, theirs = context.Pipe()
        process = context.Process(target=memory_worker, args=(name, data, theirs), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    stages: dict[str, Any] = {"alone": alone}
    for stage in ("imported", "open", "read"):
        for pipe in pipes:
            pipe.send(stage)
        for pipe in pipes:
            pipe.recv()
        each = [memory_of(process.pid) for process in processes]
        stages[stage] = {key: statistics.mean(one[key] for one in each) for key in each[0]}
    each = [memory_of(process) for process in (os.getpid(), *(process.pid for process in processes))]
    stages["all"] = {key: sum(one[key] for one in each) for key in each[0]}
    for pipe in pipes:
        pipe.send("end")
    for process in processes:
        process.join()
    return stages


def compare_memory(rivals: list[Rival], corpus: Corpus, rounds: int) -> dict[str, dict[str, list[Any]]]:
    """By way to start and name, the rounds. `None` is a worker that only has torch."""
    names = [None, *(rival.name for rival in rivals if "memory" in rival.scenarios)]
    for rival in rivals:
        if rival.name in names:
            prepared(corpus, rival)
    results: dict[str, dict[str, list[Any]]] = {start: {} for start in ("fork", "spawn")}
    for _ in range(rounds):
        for start, of_start in results.items():
            for name in names:
                say(f"memory, {start}: {name or 'an empty worker'}")
                command = [
                    sys.executable,
                    __file__,
                    "--measure-memory",
                    name or "",
                    start,
                    str(corpus.directory),
                ]
                process = subprocess.run(command, capture_output=True, text=True)
                if process.returncode != 0:
                    raise Failure(f"memory of {name} with {start}: {process.stderr.strip()}")
                of_start.setdefault(str(name), []).append(json.loads(process.stdout.splitlines()[-1]))
    return results


# ---- The report ------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "date": datetime.date.today().isoformat(),
    }


def markdown(table: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    lines.insert(1, "|" + "|".join(["---"] + ["--:"] * (len(widths) - 1)) + "|")
    return "\n".join(lines)


def base_of(results: dict[str, Any]) -> str:
    """Whose figures the others' are divided by."""
    return next((name for name in ("tokcask", "tokcask, get") if name in results), next(iter(results)))


def time_table(
    results: Rounds, unit: str, more: Callable[[float], list[str]] | None = None
) -> list[list[str]]:
    base = base_of(results)
    reference = statistics.median(results[base])
    table = [["", unit, "least", "greatest", f"/ {base}"]]
    for name, figures in results.items():
        median = statistics.median(figures)
        cells = [f"{figure:,.0f}" for figure in (median, min(figures), max(figures))]
        table.append([name, *cells, f"{median / reference:.2f}"])
    return table


def memory_table(results: dict[str, list[Any]]) -> list[list[str]]:
    """MiB above a worker that has only torch."""

    def median(name: str, *path: str) -> float:
        values = []
        for value in results[name]:
            for key in path:
                value = value[key]
            values.append(value / 1024)
        return statistics.median(values)

    def above(name: str, *path: str) -> float:
        return median(name, *path) - median("None", *path)

    def further(name: str) -> float:
        return (above(name, "all", "anonymous") - above(name, "alone", "anonymous")) / MEMORY_WORKERS

    names = [name for name in results if name != "None"]
    base = base_of(dict.fromkeys(names))
    table = [
        [
            "",
            "its imports",
            "data open",
            "20,000 read",
            "not of files",
            "a further one",
            "all 5, not of files",
        ]
        + ["pickled bytes", f"read / {base}"]
    ]
    for name in names:
        figures = [above(name, stage, "pss") for stage in ("imported", "open", "read")]
        figures += [above(name, "read", "anonymous"), further(name), above(name, "all", "anonymous")]
        ratio = figures[2] / above(base, "read", "pss")
        pickled = f"{results[name][0]['pickled']:,}"
        table.append([name, *(f"{figure:.1f}" for figure in figures), pickled, f"{ratio:.2f}"])
    return table


def print_table(title: str, table: list[list[str]], note: str = "") -> None:
    print(f"\n### {title}\n\n{markdown(table)}")
    if note:
        print(f"\n{note}")
    sys.stdout.flush()


def opened_corpus(arguments: argparse.Namespace) -> Corpus:
    if arguments.store is not None:
        name = "store-" + hashlib.sha256(str(arguments.store.resolve()).encode()).hexdigest()[:12]
        return find_corpus(arguments.directory, name, lambda path: take(path, arguments.store))
    records, seed = arguments.records, arguments.seed
    return find_corpus(arguments.directory, f"made-{records}-{seed}", lambda path: make(path, records, seed))


def run_times(arguments: argparse.Namespace, rivals: list[Rival], corpus: Corpus) -> dict[str, Rounds]:
    """The scenarios item, batch and loader, with their tables."""
    say("opening and comparing")
    contestants = [Contestant(rival, corpus) for rival in rivals]
    for contestant in contestants:
        contestant.verify(corpus)
    results: dict[str, Rounds] = {}
    options = (corpus, QUICK if arguments.quick else FULL, arguments.rounds, arguments.seed)

    def those(scenario: str) -> list[Contestant]:
        return [contestant for contestant in contestants if scenario in contestant.rival.scenarios]

    if "item" in arguments.scenarios and those("item"):
        say("item")
        results["item_ns"] = time_items(those("item"), *options)
        print_table("One item, random order", time_table(results["item_ns"], "ns"))
    if "batch" in arguments.scenarios:
        say("batch")
        ids = results["batch_ids_us"] = time_batches(those("batch"), *options, everything=False)
        print_table(f"{BATCH} random items to a padded int64 tensor", time_table(ids, "µs"))
        whole = [contestant for contestant in those("batch") if contestant.collate_all is not None]
        if whole:
            results["batch_all_us"] = time_batches(whole, *options, everything=True)
            print_table("... with attention_mask and labels", time_table(results["batch_all_us"], "µs"))
    mean = corpus.about["tokens"] / corpus.about["records"]
    for workers in arguments.workers if "loader" in arguments.scenarios else ():
        say(f"loader with {workers} workers")
        rates = results[f"loader_{workers}_batches_per_s"] = time_loaders(
            those("loader"), *options, workers=workers
        )
        table = time_table(rates, "batches/s")
        table[0].append("million tokens/s")
        for row, figures in zip(table[1:], rates.values(), strict=True):
            row.append(f"{statistics.median(figures) * BATCH * mean / 1e6:.1f}")
        print_table(f"DataLoader, {workers} workers (fork, persistent), batches of {BATCH}", table)
    return results


def run_memory(arguments: argparse.Namespace, rivals: list[Rival]) -> dict[str, dict[str, list[Any]]]:
    count, seed = 50_000 if arguments.quick else MEMORY_RECORDS, arguments.seed
    name = f"short-{count}-{seed}"
    corpus = find_corpus(arguments.directory, name, lambda path: make(path, count, seed, short=True))
    results = compare_memory(rivals, corpus, 1 if arguments.quick else min(3, arguments.rounds))
    note = (
        f"MiB of proportional set size above a worker that has only torch; mean of {MEMORY_WORKERS} workers."
    )
    for start, of_start in results.items():
        print_table(f"Memory of a worker, {len(corpus):,} keys, {start}", memory_table(of_start), note)
    return results


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {
        "schema_version": 1,
        "machine": machine(),
        "seed": arguments.seed,
        "batch": BATCH,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "unavailable": {},
    }
    rivals = []
    for rival in RIVALS:
        if (reason := rival.unavailable()) is None:
            rivals.append(rival)
            report["versions"] |= rival.versions()
        else:
            report["unavailable"][rival.name] = reason
            print(f"not available: {rival.name}: {reason}")
    of = report["machine"]
    print(f"{of['cpu']}, {of['cores']} cores, {of['memory_gib']} GiB, kernel {of['kernel']}")
    print(f"Python {of['python']}, seed {arguments.seed}")
    print(", ".join(f"{package} {version}" for package, version in report["versions"].items()))
    print(f"medians of {arguments.rounds} interleaved rounds; load average before: {of['load_before']:.1f}")
    if rivals and any(arguments.scenarios):
        corpus = opened_corpus(arguments)
        about = report["corpus"] = corpus.about
        print(f"{about['records']:,} records, {about['tokens']:,} tokens: {about['what']}")
        report["rounds"] = run_times(arguments, rivals, corpus)
    if rivals and arguments.memory:
        report["memory_kib"] = run_memory(arguments, rivals)
    return report


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/loader.py",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="5,000 records and short rounds: under two minutes"
    )
    parser.add_argument("--records", type=int, metavar="N", help="how many to make (50,000)", default=None)
    parser.add_argument(
        "--store", type=pathlib.Path, metavar="DIR", help="take the entries of this store instead"
    )
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument(
        "--scenarios", default="item,batch,loader", metavar="LIST", help="some of item,batch,loader (all)"
    )
    parser.add_argument("--workers", metavar="LIST", help="worker processes of loader (4,16; with --quick 4)")
    parser.add_argument(
        "--memory", action="store_true", help="also memory: takes a million short records more"
    )
    parser.add_argument(
        "--directory",
        type=pathlib.Path,
        metavar="DIR",
        default=BUILD / "bench" / "loader",
        help="where everybody's files are made and kept (build/bench/loader)",
    )
    parser.add_argument(
        "--megatron",
        type=pathlib.Path,
        metavar="DIR",
        help=f"where the package megatron lies, if not installed (or {MEGATRON_VARIABLE})",
    )
    parser.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="write machine, versions and all rounds"
    )
    parser.add_argument("--measure-memory", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.scenarios = arguments.scenarios.split(",")
    if not set(arguments.scenarios) <= {"item", "batch", "loader", ""}:
        parser.error("--scenarios is a list of item, batch and loader")
    if arguments.records is None:
        arguments.records = (QUICK if arguments.quick else FULL).records
    if arguments.workers is None:
        arguments.workers = "4" if arguments.quick else "4,16"
    arguments.workers = [int(count) for count in arguments.workers.split(",")]
    if arguments.megatron is not None:
        os.environ[MEGATRON_VARIABLE] = str(arguments.megatron.resolve())
    return arguments


def main() -> int:
    arguments = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    warnings.filterwarnings("ignore", module="megatron")
    torch.set_num_threads(1)
    if arguments.measure_memory is not None:
        name, start, path = arguments.measure_memory
        print(json.dumps(measure_memory(name or None, start, pathlib.Path(path))))
        return 0
    report = run(arguments)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"bench/loader.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
