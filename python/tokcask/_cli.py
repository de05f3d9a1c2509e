"""The `tokcask` command: the C++ program with tokenizers and formats from Python."""

from __future__ import annotations

import signal
import sys

from tokcask import _core


def _load(file: str, jobs: int) -> object:
    # Late, because most runs need no tokenizer, and importing one takes longer than they do.
    from tokcask._hf import FileTokenizer

    return FileTokenizer(file, jobs)


def _formats(verb: str, request: str, monitor: _core.FormatMonitor) -> str:
    from tokcask._exchange._command import run

    return run(verb, request, monitor)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line (sys.argv by default) and returns the exit code."""
    # Python's handler only sets a flag that nobody reads while C++ runs; warm brings its own, and elsewhere
    # Ctrl-C shall end the process.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _core.run_cli(sys.argv[1:] if arguments is None else arguments, _load, _formats)
