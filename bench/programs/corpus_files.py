"""The files that every way of tokenizing takes, and their texts."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

BATCH = 1000


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """In a fixed order, so that all do the same."""
    if path.is_file():
        return [path]
    found = []
    for directory, subdirectories, names in os.walk(path):
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        found += [pathlib.Path(directory, name) for name in sorted(names) if not name.startswith(".")]
    return found


def batches_of_texts(path: pathlib.Path) -> Iterator[list[str]]:
    files = files_of(path)
    for begin in range(0, len(files), BATCH):
        yield [file.read_bytes().decode() for file in files[begin : begin + BATCH]]
