"""Starting what is measured: rivals' workers, and programs as whole processes."""

from __future__ import annotations

import json
import os
import pathlib
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

BENCH = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
NATIVE = ROOT / "build" / "bench-release" / "bench"


class Failure(Exception):
    """What was asked for cannot be measured: one line tells why."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def environment() -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(BENCH), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "PYTHONWARNINGS": "ignore",
    }


class Worker:
    """A process of suite/worker.py. Its standard error goes to the file `log`."""

    def __init__(self, name: str, corpus: pathlib.Path, log: pathlib.Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "suite.worker", name, str(corpus)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(),
                cwd=BENCH,
                bufsize=0,
            )

    def greeting(self) -> dict[str, Any]:
        return self._answer(180)

    def ask(self, do: str, timeout: float = 900, **arguments: Any) -> dict[str, Any]:
        """Throws Failure with the reason where there is no figure."""
        try:
            self._process.stdin.write(json.dumps({"do": do} | arguments).encode() + b"\n")
        except OSError as error:
            raise Failure(f"its process has ended, see {self.log}") from error
        answer = self._answer(timeout)
        if "error" in answer:
            raise Failure(answer["error"])
        return answer

    def once(self, do: str, **arguments: Any) -> dict[str, Any]:
        """In a session of its own."""
        self.ask("begin")
        answer = self.ask(do, **arguments)
        self.ask("end")
        return answer

    def _answer(self, timeout: float) -> dict[str, Any]:
        line = b""
        end = time.monotonic() + timeout
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            part = self._process.stdout.read(1 << 16) if ready else b""
            if not part:
                self.close()
                raise Failure(f"no answer, see {self.log}" if ready else f"no answer in {timeout} s")
            line += part
        return json.loads(line)

    def close(self) -> None:
        """Ends it, and so its session: both see the end of their commands."""
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run(command: Sequence[str | pathlib.Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Throws Failure if the program cannot be run or fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(), **options
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{words[0]}: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise Failure(f"{pathlib.Path(words[0]).name} exited with {done.returncode}: {lines[-1]}")
    return done


def timed_run(command: Sequence[str | pathlib.Path]) -> tuple[float, str]:
    """Seconds of the whole process, and what it printed."""
    begin = time.perf_counter()
    done = run(command, timeout=1800)
    return time.perf_counter() - begin, done.stdout


def last_json(output: str) -> dict[str, Any]:
    return json.loads(output.strip().splitlines()[-1])


Measure = Callable[[int], float]


def interleave(what: str, measures: dict[str, Measure], rounds: int, warm_up: int) -> dict[str, Any]:
    """All in turn, then again, each time beginning with another; `warm_up` turns before do not count. Who fails
    once is left out from then on, with the reason."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    failed: dict[str, str] = {}
    names = list(measures)
    for number in range(-warm_up, rounds):
        say(f"{what}: round {number + 1} of {rounds}" if number >= 0 else f"{what}: warming up")
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            if name in failed:
                continue
            try:
                figure = measures[name](number)
            except Failure as failure:
                failed[name] = str(failure)
                say(f"{what}: {name} is left out: {failure}")
                continue
            if number >= 0:
                figures[name].append(figure)
    return {
        "rounds": {name: figures[name] for name in names if name not in failed and figures[name]},
        "failed": failed,
    }
