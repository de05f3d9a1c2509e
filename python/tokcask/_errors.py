"""What the store raises besides ValueError, FileNotFoundError and OSError."""

from __future__ import annotations


class DamagedError(OSError):
    """The store's bytes are not what tokcask wrote."""


class BusyError(TimeoutError):
    """Another process held the write lock for longer than lock_timeout."""


class ReadOnlyError(PermissionError):
    """A write through a cache that was opened with read_only=True."""


class UnsupportedError(OSError):
    """The store cannot work in this place, e.g. on a network file system."""


class MissingEntryError(KeyError):
    """A data set was asked for an item whose entry the store does not have (any more)."""

    def __str__(self) -> str:
        # KeyError's own shows a text in quotes.
        return str(self.args[0]) if self.args else ""


for _class in (DamagedError, BusyError, ReadOnlyError, UnsupportedError, MissingEntryError):
    _class.__module__ = "tokcask"
