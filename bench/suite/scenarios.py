"""The scenarios, (a) to (n). Each gives a result that report.py can show: rounds by name, a unit, notes."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rivals import RIVALS, rival_named

from suite import memory, prepare
from suite.corpus import Corpus
from suite.machine import bytes_on_disk, drop_from_page_cache, read_in_order
from suite.prepare import SEED, Files, prepared, quickstart, warm_command
from suite.processes import (
    BENCH,
    NATIVE,
    Failure,
    Measure,
    Worker,
    interleave,
    last_json,
    run,
    say,
    timed_run,
)

Result = dict[str, Any]
OURS_NATIVE = "tokcask (C++)"
GET_MANY_NATIVE = "tokcask, get_many (C++)"
LMDB_NATIVE = "LMDB (C++)"
FLAT_NATIVE = "one contiguous array (C++)"


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    round_seconds: float  # of single items and batches
    loader_seconds: float
    workers: tuple[int, ...]
    filled_files: int
    memory_records: int
    scale: str
    turnover: tuple[str, str]  # budget, turnovers
    small: tuple[int, ...]  # files, for the break-even
    memory_rounds: int


FULL = Size(
    0.2,
    0.6,
    (1, 2, 4, 8, 16),
    1_000,
    1_000_000,
    "50000,500000,5000000",
    ("256M", "4"),
    (10, 100, 1_000, 3_000),
    3,
)
QUICK = Size(0.1, 0.3, (1, 4), 300, 50_000, "5000,50000", ("64M", "3"), (10, 100, 1_000), 1)


class Context:
    """What scenarios share: the files, what is prepared, and the rivals' workers, which live until another
    corpus is asked for."""

    def __init__(self, files: Files, data: pathlib.Path, size: Size, rounds: int, names: list[str]) -> None:
        self.files = files
        self.data = data
        self.size = size
        self.rounds = rounds
        self.names = names
        self.unavailable: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.imports: dict[str, float] = {}
        self._workers: dict[str, Worker] = {}
        self._of: pathlib.Path | None = None
        self._in_order: set[pathlib.Path] = set()

    def corpus(self, length: int) -> Corpus:
        return prepare.corpus_at(self.files, self.data, length)

    def workers(self, length: int, scenario: str) -> dict[str, Worker]:
        """Those who take part in a scenario, after what they give was compared with what was stored."""
        corpus = self.corpus(length)
        if self._of != corpus.directory:
            self.close()
            self._read_in_order(corpus.directory / "ids.npy")
            for name in self.names:
                self._start(name, corpus)
            self._of = corpus.directory
        return {
            name: worker for name, worker in self._workers.items() if scenario in rival_named(name).scenarios
        }

    def _start(self, name: str, corpus: Corpus) -> None:
        worker = None
        try:
            self._read_in_order(prepared(corpus, rival_named(name)))
            worker = Worker(name, corpus.directory, self.data / "workers.log")
            greeting = worker.greeting()
            if greeting["unavailable"] is not None:
                raise Failure(greeting["unavailable"])
            self.versions |= greeting["versions"]
            self.imports[name] = greeting["import_seconds"]
            say(f"comparing what {name} gives")
            worker.once("verify")
            self._workers[name] = worker
            self.unavailable.pop(name, None)
        except Failure as failure:
            say(f"{name} does not take part: {failure}")
            self.unavailable[name] = str(failure)
            if worker is not None:
                worker.close()

    def _read_in_order(self, path: pathlib.Path) -> None:
        if path not in self._in_order:
            read_in_order(path)
            self._in_order.add(path)

    def page_cache_changed(self) -> None:
        """The next scenario finds everybody's files as if they had been read from begin to end."""
        self.close()
        self._in_order.clear()

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers = {}
        self._of = None

    def scratch(self, name: str) -> pathlib.Path:
        """An empty directory on the disk that is measured."""
        path = self.data / "scratch" / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def seconds_of(command: list[Any], check: Callable[[Any], None] = lambda figures: None) -> Measure:
    """Measures a whole process, which prints a line of JSON that check() looks at."""

    def measure(_: int) -> float:
        seconds, output = timed_run(command)
        check(last_json(output))
        return seconds

    return measure


def expect(holds: bool, text: str) -> None:
    if not holds:
        raise Failure(text)


def all_hits(figures: Any) -> None:
    expect(figures["misses"] == 0 and figures["files_read"] == 0, "a second run that is not all hits")


# ---- Whole processes over files --------------------------------------------------------------------------


def second_run(context: Context) -> Result:
    files, count = context.files, context.files.about["files"]
    corpus = context.corpus(2048)
    store = prepare.warmed(files, context.data, 2048)
    walk = [NATIVE / "native" / "walk", files.path]
    measures = {
        "bare walk and stat (C++)": seconds_of(walk),
        "tokcask": seconds_of(warm_command(store, files.path, 2048), all_hits),
    }
    failed = {}
    if "HF datasets" in context.names:
        try:
            measures["HF datasets, cached map"] = seconds_of(prepare.hf_mapped(files, context.data, 2048))
        except Failure as failure:
            failed["HF datasets, cached map"] = str(failure)
    if "seed (npz)" in context.names:
        sha = bytes(corpus.keys[0]).decode().split("|")[1]
        root = prepared(corpus, rival_named("seed (npz)"))
        program = [sys.executable, BENCH / "programs" / "seed_again.py", files.path, root, sha, 2048]
        measures["seed (npz)"] = seconds_of(
            program, lambda figures: expect(figures["hits"] > 0.99 * count, "the seed's cache missed")
        )
    result = interleave("second run", measures, context.rounds, 1)
    result["failed"] |= failed
    return result | {
        "title": f"A second run over {count:,} unchanged files, whole process",
        "unit": "s",
        "base": "tokcask",
        "notes": ["The seed's program is spared loading the tokenizer; HF's needs it to find its map again."],
    }


def one_file_edited(context: Context) -> Result:
    files = context.files
    store = prepare.warmed(files, context.data, 2048)
    command = warm_command(store, files.path, 2048)
    edited = quickstart.file_to_edit(files.path)
    original = edited.read_bytes()
    tokenizer = quickstart.tokenizer_file()

    def after_edit(number: int) -> float:
        quickstart.replace(edited, original + f"\none more line, {time.time_ns()}\n".encode())
        return seconds_of(command, lambda figures: expect(figures["misses"] == 1, "not one miss"))(number)

    alone = [sys.executable, BENCH / "programs" / "tokenize_alone.py", edited, tokenizer, 2048]
    measures = {
        "tokcask, one file edited": after_edit,
        "tokcask, nothing edited": seconds_of(command, all_hits),
        "that file alone, tokenizer loaded": seconds_of(alone),
    }
    try:
        run(command)
        result = interleave("one file edited", measures, context.rounds, 1)
    finally:
        quickstart.replace(edited, original)
        for _ in range(2):
            run(command)
    return result | {
        "title": "One file edited, whole process",
        "unit": "s",
        "base": "tokcask, one file edited",
        "notes": ["HF datasets maps all files again when one has changed: see (h) for what that takes."],
    }


def fill(context: Context) -> Result:
    count = context.size.filled_files
    part = prepare.part_of(context.files, context.data / f"part-{count}", count)
    tokenizer = quickstart.tokenizer_file()
    alone = [sys.executable, BENCH / "programs" / "tokenize_alone.py", part, tokenizer, 2048]
    about = last_json(run(alone).stdout)

    def into(command: Callable[[pathlib.Path], list[Any]]) -> Measure:
        def measure(number: int) -> float:
            directory = context.scratch("fill") / "store"
            return timed_run(command(directory))[0]

        return measure

    one = quickstart.file_to_edit(part)
    alone_one = [sys.executable, BENCH / "programs" / "tokenize_alone.py", one, tokenizer, 2048]
    measures = {
        "tokenize alone": seconds_of(alone),
        "tokcask": into(lambda directory: warm_command(directory, part, 2048)),
        "tokenize alone, one file": seconds_of(alone_one),
        "tokcask, one file": into(lambda directory: warm_command(directory, one.parent, 2048, one.name)),
    }
    result = interleave("fill", measures, context.rounds, 1)
    rivals: dict[str, Measure] = {}
    for name, way in (("Megatron", "megatron"), ("seed (npz)", "seed")):
        if name in context.names:
            rivals[name] = into(lambda directory, way=way: [*alone, way, directory])
    if "HF datasets" in context.names:
        hf = [sys.executable, BENCH / "programs" / "hf_map.py", part]
        rivals["HF datasets, map"] = into(lambda directory: [*hf, directory, tokenizer, 2048])
    others = interleave("fill, rivals", rivals, min(context.rounds, 3), 0)
    result = {key: result[key] | others[key] for key in result}
    shutil.rmtree(context.data / "scratch", ignore_errors=True)
    return result | {
        "title": f"Fill: tokenize and store {count:,} files, whole process, both cores",
        "unit": "s",
        "base": "tokenize alone",
        "about": about,
        "notes": [
            "tokcask is durable when its process ends; the others leave that to the system. One file: what each costs "
            "whatever the corpus, above all loading the tokenizer, and for tokcask hashing it. Rivals: 3 rounds."
        ],
    }


def break_even(context: Context) -> Result:
    """Small corpora: where is a second run as long as tokenizing?"""
    tokenizer = quickstart.tokenizer_file()
    counts = [count for count in context.size.small if count < context.files.about["files"]]
    rows = []
    for count in counts:
        part = prepare.part_of(context.files, context.data / f"part-{count}", count)
        store = context.scratch("small") / "store"
        command = warm_command(store, part, 2048)
        first, _ = timed_run(command)
        for _ in range(2):
            run(command)
        alone = [sys.executable, BENCH / "programs" / "tokenize_alone.py", part, tokenizer, 2048]
        measures = {"again": seconds_of(command, all_hits), "tokenize": seconds_of(alone)}
        rounds = min(context.rounds, 3) if count > 1000 else context.rounds
        measured = interleave(f"break-even, {count:,} files", measures, rounds, 0)["rounds"]
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        medians = {name: statistics.median(figures) for name, figures in measured.items()}
        rows.append({"files": count, "bytes": size, "first": first} | medians)
    return {"title": "Where the cache stops paying", "table": rows, "rounds": {}, "failed": {}, "unit": "s"}


# ---- Reading ---------------------------------------------------------------------------------------------


def native_passes(corpus: Corpus, mode: str) -> dict[str, list[Any]]:
    """The commands of the reader in C++, by name."""
    reader = NATIVE / "native" / "reader"
    tokcask = prepared(corpus, rival_named("tokcask"))
    commands = {
        OURS_NATIVE: [reader, "tokcask", mode, tokcask, corpus.directory],
        GET_MANY_NATIVE: [reader, "get", mode, tokcask, corpus.directory],
        FLAT_NATIVE: [reader, "flat", mode, "-", corpus.directory],
    }
    try:
        commands[LMDB_NATIVE] = [
            reader,
            "lmdb",
            mode,
            prepared(corpus, rival_named("py-lmdb")),
            corpus.directory,
        ]
    except Failure as failure:
        say(f"no file for LMDB alone: {failure}")
    return commands


def expected_sum(corpus: Corpus, everything: bool) -> int:
    ids = corpus.ids if everything else corpus.ids[corpus.offsets[:-1]]
    return int(np.asarray(ids).sum(dtype=np.int64))


def whole_pass(context: Context, length: int, everything: bool) -> Result:
    workers = context.workers(length, "pass")
    corpus = context.corpus(length)
    expected = expected_sum(corpus, everything)

    def check(figures: Any) -> float:
        expect(figures["sum"] == expected, f"a sum of {figures['sum']}, not {expected}")
        return figures["seconds"] * 1e3

    def native(command: list[Any]) -> Measure:
        return lambda number: check(last_json(run(command).stdout))

    def by_worker(name: str, worker: Worker) -> Measure:
        rival = rival_named(name)

        def measure(number: int) -> float:
            figures = worker.once("whole_pass", everything=everything, number=number + 1)
            # Who reads a share, or blocks, has another sum.
            return check(figures) if rival.share == 1 and not rival.blocks else figures["seconds"] * 1e3

        return measure

    mode = "sum" if everything else "first"
    measures = {name: native(command) for name, command in native_passes(corpus, mode).items()}
    measures |= {name: by_worker(name, worker) for name, worker in workers.items()}
    title = "every token summed" if everything else "the first token of each"
    result = interleave(f"{mode}, {length}", measures, context.rounds, 0)
    return result | {
        "title": f"Open, resolve {len(corpus):,} keys, {title}; sequence length {length}",
        "unit": "ms",
        "base": OURS_NATIVE,
        "notes": [
            "In a fresh process, without its start and imports. The seed reads a tenth of the entries, and the "
            "time after opening is multiplied. Megatron, ArrayRecord, MDS and HF datasets have no keys to "
            "resolve; litdata's items are blocks of 2,048 tokens."
        ],
    }


def sessions(workers: dict[str, Worker], act: Callable[[dict[str, Worker]], Result]) -> Result:
    """With a session of each worker that lasts for the scenario."""
    opened = []
    try:
        for worker in workers.values():
            worker.ask("begin")
            opened.append(worker)
        return act(workers)
    finally:
        for worker in opened:
            try:
                worker.ask("end")
            except Failure as failure:
                say(f"{worker.name}: {failure}")


def items(context: Context, length: int) -> Result:
    seconds = context.size.round_seconds

    def measure(worker: Worker) -> Measure:
        count = 0

        def one(number: int) -> float:
            nonlocal count
            if count == 0:
                worker.ask("items", count=20, seed=1)
                count = sized(seconds * 1e9, worker.ask("items", count=50, seed=2)["ns"], 20_000)
            return worker.ask("items", count=count, seed=SEED + number)["ns"]

        return one

    def act(workers: dict[str, Worker]) -> Result:
        measures = {name: measure(worker) for name, worker in workers.items()}
        return interleave(f"items, {length}", measures, context.rounds, 1)

    return sessions(context.workers(length, "item"), act) | {
        "title": f"One random item, in Python; sequence length {length}",
        "unit": "ns",
        "base": "tokcask",
        "notes": ["The ids are not touched. litdata's items are blocks."],
    }


def sized(wanted: float, one: float, most: int) -> int:
    """How many of what takes `one` fill `wanted`."""
    return int(min(most, max(5, wanted / max(one, 1e-9))))


def batches(context: Context, length: int, everything: bool) -> Result:
    seconds = context.size.round_seconds

    def measure(worker: Worker) -> Measure:
        count = 0

        def one(number: int) -> float:
            nonlocal count
            if count == 0:
                once = worker.ask("batches", count=2, seed=1, everything=everything)["us"]
                count = sized(seconds * 1e6, once, 400)
            return worker.ask("batches", count=count, seed=SEED + number, everything=everything)["us"]

        return one

    def act(workers: dict[str, Worker]) -> Result:
        measures = {
            name: measure(worker)
            for name, worker in workers.items()
            if not everything or rival_named(name).collate_all() is not None
        }
        return interleave(f"batches, {length}", measures, context.rounds, 1)

    what = "attention mask and labels too" if everything else "input_ids"
    return sessions(context.workers(length, "batch"), act) | {
        "title": f"64 random items to padded int64, {what}, in Python; sequence length {length}",
        "unit": "µs",
        "base": "tokcask",
        "notes": [],
    }


def loaders(context: Context, workers: int) -> Result:
    measures: dict[str, Measure] = {}
    for name, worker in context.workers(2048, "loader").items():
        measures[name] = lambda number, worker=worker: worker.once(
            "loader", timeout=120, workers=workers, seconds=context.size.loader_seconds, seed=SEED + number
        )["batches_per_s"]
    result = interleave(f"{workers} workers", measures, context.rounds, 0)
    return result | {
        "title": f"A DataLoader with {workers} worker processes (fork), batches of 64",
        "unit": "batches/s",
        "base": "tokcask",
        "notes": [],
    }


def cold(context: Context) -> Result:
    """All files of a rival leave the page cache before it opens them."""
    workers = context.workers(2048, "cold")
    corpus = context.corpus(2048)
    store = prepared(corpus, rival_named("tokcask"))
    natives = native_passes(corpus, "sum")
    reader = NATIVE / "native" / "reader"
    natives["tokcask, populate (C++)"] = [reader, "populate", "sum", store, corpus.directory]
    natives["data.mdb read from begin to end (C++)"] = [
        reader,
        "read",
        "sum",
        store / "data.mdb",
        corpus.directory,
    ]
    places = {FLAT_NATIVE: corpus.directory / "ids.npy", LMDB_NATIVE: corpus.directory / "lmdb"}
    left: dict[str, float] = {}

    def drop(name: str, path: pathlib.Path) -> None:
        left[name] = max(left.get(name, 0.0), drop_from_page_cache(path))

    def native(name: str, command: list[Any]) -> Measure:
        def measure(number: int) -> float:
            drop(name, places.get(name, store))
            return last_json(run(command).stdout)["seconds"] * 1e3

        return measure

    def by_worker(name: str, worker: Worker) -> Measure:
        def measure(number: int) -> float:
            drop(name, corpus.directory / rival_named(name).layout)
            return worker.once("whole_pass", everything=True, number=number + 1)["seconds"] * 1e3

        return measure

    measures = {name: native(name, command) for name, command in natives.items()}
    measures |= {name: by_worker(name, worker) for name, worker in workers.items()}
    result = interleave("cold", measures, context.rounds, 0)
    context.page_cache_changed()  # it is as the last of them left it
    return result | {
        "title": "Cold page cache: open and sum every token; sequence length 2048",
        "unit": "ms",
        "base": "tokcask, populate (C++)",
        "left_in_page_cache": left,
        "notes": [
            "Files leave the page cache by posix_fadvise(DONTNEED), checked by mincore: at most "
            f"{max(left.values(), default=0.0):.0%} of the largest file stayed. What lies below a virtual machine's "
            "disk may still be cached by its host."
        ],
    }


# ---- C++ micro-benchmarks --------------------------------------------------------------------------------


def micro(context: Context, length: int) -> Result:
    corpus = context.corpus(length)
    store = prepared(corpus, rival_named("tokcask"))
    say(f"micro-benchmarks, {length}")
    command = [NATIVE / "native" / "micro", store, corpus.directory, context.scratch("micro")]
    command += ["--benchmark_format=json", f"--benchmark_repetitions={context.rounds}"]
    command += [
        "--benchmark_enable_random_interleaving=true",
        f"--benchmark_min_time={context.size.round_seconds}",
    ]
    report = json.loads(run(command, timeout=1800).stdout)
    shutil.rmtree(context.data / "scratch", ignore_errors=True)
    rounds: dict[str, list[float]] = {}
    for one in report["benchmarks"]:
        if one["run_type"] == "iteration":
            name = one["name"].split("/")[0]
            rate = one.get("bytes_per_second")
            figure = rate / 1e9 if rate else one["real_time"]
            rounds.setdefault(name, []).append(figure)
    return {
        "title": f"Google Benchmark, C++, warm; sequence length {length}",
        "unit": "ns, or GB/s",
        "rounds": rounds,
        "failed": {},
        "notes": [
            "get_*: ns per random get, first token touched. Others: GB/s of tokens, or of what is written."
        ],
    }


# ---- Life ------------------------------------------------------------------------------------------------


def json_lines(output: str) -> list[Any]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def at_the_cap(context: Context) -> Result:
    budget, turnovers = context.size.turnover
    say("puts at the cap")
    command = [NATIVE / "life" / "turnover", "--budget", budget, "--turnovers", turnovers]
    lines = json_lines(run(command, timeout=1800).stdout)
    rows = []
    for name in dict.fromkeys(line["case"] for line in lines):
        of_case = [line for line in lines if line["case"] == name]
        # The first turnover fills the file.
        ratios = [line["lmdb_seconds"] / line["seconds"] for line in of_case[1:] if line["seconds"]]
        rows.append(
            {
                "case": name,
                "MB/s": statistics.median(line["bytes"] / line["seconds"] / 1e6 for line in of_case[1:]),
                "/ LMDB": statistics.median(ratios),
                "highest size / cap": max(line["highest_bytes"] / line["max_bytes"] for line in of_case),
                "LMDB's": max(line["lmdb_highest_bytes"] / line["max_bytes"] for line in of_case),
                "declined": sum(line["declined"] for line in of_case),
            }
        )
    title = f"Puts at the cap of {budget}, {turnovers} turnovers, beside LMDB alone"
    return {"title": title, "table": rows, "rounds": {}, "failed": {}, "unit": "MB/s"}


def entries(context: Context) -> Result:
    say("many entries")
    lines = json_lines(
        run([NATIVE / "life" / "scale", "--puts", "no", "--entries", context.size.scale], timeout=1800).stdout
    )
    medians = ("prepared_ns", "floor_ns", "get_us", "open_ms")
    rows = [
        {"entries": line["entries"], "file MiB": line["file_bytes"] / 2**20}
        | {name.replace("_", " "): statistics.median(line[name]) for name in medians}
        | {"depth": line["depth"]}
        for line in lines
    ]
    return {
        "title": "Many short entries: gets and opening",
        "table": rows,
        "rounds": {},
        "failed": {},
        "unit": "",
        "lines": lines,
        "notes": [
            "floor: two reads at random, of a table with 16 bytes per entry and of the file at the place that it "
            "names: the cache misses that a prepared get cannot do without."
        ],
    }


# ---- Space -----------------------------------------------------------------------------------------------


def disk(context: Context) -> Result:
    rounds: dict[str, list[float]] = {}
    lengths = [int(path.name.split("-")[1]) for path in sorted(context.data.glob("corpus-*"))]
    for length in sorted(lengths):
        corpus = context.corpus(length)
        for rival in RIVALS:
            directory = corpus.directory / rival.layout
            if directory.is_dir() and f"{rival.layout}, {length}" not in rounds:
                rounds[f"{rival.layout}, {length}"] = [bytes_on_disk(directory) / corpus.about["tokens"]]
        warm = context.data / f"warm-{length}"
        if warm.is_dir():
            rounds[f"tokcask warm, {length}"] = [bytes_on_disk(warm) / corpus.about["tokens"]]
    return {
        "title": "Bytes on disk per token",
        "unit": "bytes",
        "rounds": rounds,
        "failed": {},
        "base": "tokcask, 2048",
        "notes": [
            "Blocks, as du counts. An int32 has 4. The seed's are compressed; a warmed store also knows its files."
        ],
    }


def worker_memory(context: Context) -> Result:
    corpus = prepare.short_corpus(context.data, context.size.memory_records)
    names = ["", *(name for name in context.names if "memory" in rival_named(name).scenarios)]
    measured: dict[str, dict[str, list[Any]]] = {}
    failed: dict[str, str] = {}
    for name in names[1:]:
        try:
            prepared(corpus, rival_named(name))
        except Failure as failure:
            failed[name] = str(failure)
    for number in range(context.size.memory_rounds):
        for start in ("fork", "spawn"):
            for name in names:
                if name in failed:
                    continue
                say(f"memory, {start}, round {number + 1}: {name or 'an empty worker'}")
                command = [sys.executable, "-m", "suite.memory", name, start, corpus.directory]
                try:
                    figures = last_json(run(command, cwd=BENCH, timeout=600).stdout)
                except Failure as failure:
                    failed[name] = str(failure)
                    continue
                measured.setdefault(start, {}).setdefault(name, []).append(figures)
    rows = [
        memory_row(start, name, of_start)
        for start, of_start in measured.items()
        for name in names[1:]
        if name not in failed
    ]
    return {
        "title": f"Memory of a worker, {len(corpus):,} keys, MiB",
        "table": rows,
        "rounds": {},
        "failed": failed,
        "unit": "MiB",
        "notes": [
            f"Proportional set size above a worker that has only torch, medians; mean of {memory.WORKERS} workers "
            "after 20,000 random items. Pages of files are the page cache's, which all share."
        ],
    }


def memory_row(start: str, name: str, measured: dict[str, list[Any]]) -> Result:
    def above(*path: str) -> float:
        def median(who: str) -> float:
            return statistics.median(figures[path[0]][path[1]] / 1024 for figures in measured[who])

        return median(name) - median("")

    return {
        "rival": name,
        "start": start,
        "imports": above("imported", "pss"),
        "data open": above("open", "pss"),
        "20,000 read": above("read", "pss"),
        "not of files": above("read", "anonymous"),
        "a further worker": (above("all", "anonymous") - above("alone", "anonymous")) / memory.WORKERS,
    }


# ---- All of them -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scenario:
    key: str
    letters: str
    measure: Callable[[Context], Result]


def scenarios(size: Size) -> list[Scenario]:
    """In the order in which they are run: those of one corpus side by side."""
    found = [Scenario("second-run", "a", second_run), Scenario("one-file-edited", "i", one_file_edited)]
    for length in (2048, 8192):
        found += [
            Scenario(f"first-{length}", "b", lambda context, n=length: whole_pass(context, n, False)),
            Scenario(f"sum-{length}", "c", lambda context, n=length: whole_pass(context, n, True)),
            Scenario(f"items-{length}", "d", lambda context, n=length: items(context, n)),
            Scenario(f"batches-{length}", "e", lambda context, n=length: batches(context, n, False)),
        ]
        if length == 2048:
            found += [Scenario("batches-all", "e", lambda context: batches(context, 2048, True))]
            found += [
                Scenario(f"workers-{count}", "f", lambda context, n=count: loaders(context, n))
                for count in size.workers
            ]
            found += [Scenario("cold", "g", cold)]
        found += [Scenario(f"micro-{length}", "cdeh", lambda context, n=length: micro(context, n))]
    return [
        *found,
        Scenario("fill", "h", fill),
        Scenario("at-the-cap", "j", at_the_cap),
        Scenario("entries", "k", entries),
        Scenario("memory", "m", worker_memory),
        Scenario("disk", "l", disk),
        Scenario("break-even", "n", break_even),
    ]
