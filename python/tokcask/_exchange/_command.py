"""What the command's verbs `export` and `import` do."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

from tokcask._core import FormatMonitor
from tokcask._exchange._export import export_tokens
from tokcask._exchange._import import import_tokens


class _Stopped(BaseException):
    """The user has interrupted the command."""


class _ToConsole(logging.Handler):
    def __init__(self, monitor: FormatMonitor) -> None:
        super().__init__(logging.WARNING)
        self._monitor = monitor

    def emit(self, record: logging.LogRecord) -> None:
        self._monitor.warning(record.getMessage())


def _export(request: dict[str, Any], on_progress: Any) -> dict[str, Any]:
    report = export_tokens(request.pop("store"), request.pop("out"), on_progress=on_progress, **request)
    return dataclasses.asdict(report)


def _import(request: dict[str, Any], on_progress: Any) -> dict[str, Any]:
    report = import_tokens(request.pop("source"), request.pop("store"), on_progress=on_progress, **request)
    figures = dataclasses.asdict(report)
    figures["conflicting_keys"] = figures.pop("conflicting")
    return figures


def run(verb: str, request: str, monitor: FormatMonitor) -> str:
    """The figures as a JSON object, which begin with what was asked for; '' when it was interrupted."""
    arguments: dict[str, Any] = json.loads(request)
    told = {"path": arguments["store"]}
    told.update({name: arguments[name] for name in ("out", "source", "order", "seed") if name in arguments})

    def on_progress(done: int, total: int) -> None:
        if not monitor.advance(f"{verb}ing", done, total):
            raise _Stopped

    log = logging.getLogger("tokcask")
    handler = _ToConsole(monitor)
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        figures = (_export if verb == "export" else _import)(arguments, on_progress)
    except _Stopped:
        return ""
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
    return json.dumps({**told, **figures})
