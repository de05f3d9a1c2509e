"""What the store raises besides ValueError, FileNotFoundError and OSError. All are kinds of OSError."""

from __future__ import annotations


class DamagedError(OSError):
    """The store's bytes are not what tokcask wrote."""


class BusyError(TimeoutError):
    """Another process held the write lock for longer than lock_timeout."""


class ReadOnlyError(PermissionError):
    """A write through a cache that was opened with read_only=True."""


class UnsupportedError(OSError):
    """The store cannot work in this place, e.g. on a network file system."""


for _class in (DamagedError, BusyError, ReadOnlyError, UnsupportedError):
    _class.__module__ = "tokcask"
