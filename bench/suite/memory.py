"""What each further worker process costs in memory: proportional set size from /proc/PID/smaps_rollup, at three
stages, beside a worker that has only torch. A process of its own per rival and way to start:

    python -m suite.memory RIVAL|"" fork|spawn CORPUS
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pathlib
import pickle
import statistics
import sys
import tempfile
import warnings
from typing import Any

import numpy as np
import torch
from rivals import RIVALS

from suite.corpus import Corpus

WORKERS = 4
READS = 20_000


def memory_of(process: int) -> dict[str, int]:
    """Proportional set size in KiB, and its part that is not of files."""
    fields = {}
    for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        fields[name] = int(value.split()[0])
    return {"pss": fields["Pss"], "anonymous": fields["Pss_Anon"]}


def memory_worker(name: str | None, records: int, data: Any, commands: Any) -> None:
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
    items = dataset if dataset is not None else range(records)
    for index in np.random.default_rng(os.getpid()).integers(0, records, READS).tolist():
        items[index]
    commands.send("read")
    commands.recv()


def measure_memory(name: str | None, start: str, path: pathlib.Path) -> dict[str, Any]:
    """In a process of its own. The mean of the workers at each stage, and with their parent at the end."""
    rival = next((rival for rival in RIVALS if rival.name == name), None)
    corpus = Corpus(path)
    dataset = None
    if rival is not None:
        rival.load()
        dataset = rival.open(corpus, path / rival.layout)
    # Fork hands over the data set itself. The others pickle it, here through a file, so that the bytes do not
    # stay in the worker's memory: a DataLoader's do not either.
    with tempfile.NamedTemporaryFile(prefix="bench-memory-") as file:
        file.write(pickle.dumps(dataset))
        file.flush()
        gc.collect()
        data = dataset if start == "fork" else pathlib.Path(file.name)
        stages = measure_workers(name, len(corpus), start, data)
        return stages | {"pickled": os.stat(file.name).st_size}


def measure_workers(name: str | None, records: int, start: str, data: Any) -> dict[str, Any]:
    context = multiprocessing.get_context(start)
    pipes, processes = [], []
    alone = memory_of(os.getpid())
    for _ in range(WORKERS):
        ours, theirs = context.Pipe()
        process = context.Process(target=memory_worker, args=(name, records, data, theirs), daemon=True)
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


def main() -> None:
    name, start, path = sys.argv[1:]
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(json.dumps(measure_memory(name or None, start, pathlib.Path(path))))


if __name__ == "__main__":
    main()
