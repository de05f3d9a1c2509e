"""Output that stands under its name only when it is whole."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Sequence
from types import TracebackType
from typing import Self


def sync(path: pathlib.Path) -> None:
    """Returns when the file or directory would survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse(path: pathlib.Path) -> None:
    raise FileExistsError(f"{path} is there already; to replace it, export with overwrite (--force)")


class StagedFiles:
    """Files, written under temporary names beside their own and renamed when all are whole.

    Names that begin with a dot and end with .tmp are what a killed export leaves; they can be removed.
    """

    def __init__(self, files: Sequence[pathlib.Path], *, overwrite: bool) -> None:
        """`files` in the order in which they get their names: the last one is what a reader looks for first."""
        self._overwrite = overwrite
        token = secrets.token_hex(4)
        self._names = {file: file.with_name(f".{file.name}.{token}.tmp") for file in files}
        self._check()

    def _check(self) -> None:
        for file in self._names:
            if not file.parent.is_dir():
                raise FileNotFoundError(f"{file.parent} is not a directory to write to")
            if file.is_dir():
                raise IsADirectoryError(f"{file} is a directory")
            if not self._overwrite and os.path.lexists(file):
                _refuse(file)

    def path(self, file: pathlib.Path) -> pathlib.Path:
        """Where to write what becomes `file`."""
        return self._names[file]

    def publish(self) -> list[pathlib.Path]:
        """Gives the files their names, on stable storage. Returns them."""
        for temporary in self._names.values():
            sync(temporary)
        self._check()
        files = list(self._names)
        # Old and new files must not be taken for one set.
        for file in reversed(files[1:]):
            file.unlink(missing_ok=True)
        for file, temporary in self._names.items():
            temporary.rename(file)
        sync(files[0].parent)
        return files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for temporary in self._names.values():
            temporary.unlink(missing_ok=True)


class StagedDirectory:
    """The same for a directory. One that is there is replaced only if it holds `marker` or nothing at all."""

    def __init__(self, directory: pathlib.Path, *, marker: str, overwrite: bool) -> None:
        self._directory = directory
        self._marker = marker
        self._overwrite = overwrite
        token = secrets.token_hex(4)
        self.path = directory.with_name(f".{directory.name}.{token}.tmp")
        self._old = directory.with_name(f".{directory.name}.{token}.old.tmp")
        self._check()

    def _check(self) -> None:
        if not self._directory.parent.is_dir():
            raise FileNotFoundError(f"{self._directory.parent} is not a directory to write to")
        if not os.path.lexists(self._directory):
            return
        if not self._overwrite:
            _refuse(self._directory)
        if self._directory.is_symlink() or not self._directory.is_dir():
            raise NotADirectoryError(f"{self._directory} is not a directory")
        if any(self._directory.iterdir()) and not (self._directory / self._marker).is_file():
            raise FileExistsError(
                f"{self._directory} holds something else: it has no {self._marker}, so it is not replaced"
            )

    def publish(self) -> list[pathlib.Path]:
        """Gives the directory its name, on stable storage. Returns the files in it."""
        for path in self.path.rglob("*"):
            sync(path)
        sync(self.path)
        self._check()
        if self._directory.exists():
            self._directory.rename(self._old)
        self.path.rename(self._directory)
        sync(self._directory.parent)
        return sorted(path for path in self._directory.rglob("*") if path.is_file())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._old.exists() and not self._directory.exists():
            with contextlib.suppress(OSError):
                self._old.rename(self._directory)
        for path in (self.path, self._old):
            shutil.rmtree(path, ignore_errors=True)
