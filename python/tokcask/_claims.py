"""Which process tokenizes what, when several fill one store: claims that die with their process.

A section belongs to one of 4096 slots, by a hash of its id. Whoever tokenizes holds record locks (fcntl) over
the slots concerned, in the file `tokenizing.lock` beside the store's own. The kernel drops them when a process
ends, however it ends, so that a claim never outlives its holder; and a forked child has none of them.

Each slot also counts: up by one, to an odd number, when it is claimed, and again when it is given back. Who read the
counts before it looked its keys up knows at its own claim whether somebody was there then or in between, and looks
again only then.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import zlib
from array import array

SLOTS = 4096
_WIDTH = array("I").itemsize
_FILE = "tokenizing.lock"
_log = logging.getLogger("tokcask")


class _File:
    """The open lock file. It stays open: closing any descriptor of it would drop this process's claims."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        # Record locks do not keep threads of one process apart.
        self.turn = threading.Lock()

    def is_at(self, path: str) -> bool:
        try:
            return os.path.samestat(os.stat(path), os.fstat(self.fd))
        except OSError:
            return False


_guard = threading.Lock()
_files: dict[str, _File] = {}


def _after_fork_in_child() -> None:
    # A thread that does not exist in the child may have held one of these.
    global _guard
    _guard = threading.Lock()
    for file in _files.values():
        file.turn = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _file_of(root: str) -> _File | None:
    path = os.path.join(os.path.realpath(root), _FILE)
    with _guard:
        file = _files.get(path)
        if file is None or not file.is_at(path):
            try:
                file = _files[path] = _File(path)
            except OSError as error:
                _log.info("%s: %s; several processes may tokenize the same texts", path, error)
                return None
        return file


def slot_of(section: str) -> int:
    """The slot of a section id."""
    return zlib.crc32(section.encode()) % SLOTS


class Claims:
    """Claims of this process on slots of one store. Made before keys are looked up.

    One thread. With `with`, other threads of this process wait for their turn. Without a lock file, as on a
    medium that is read-only, every claim succeeds.
    """

    def __init__(self, root: str) -> None:
        self._file = _file_of(root)
        self._before = self._counts(0, SLOTS)

    def __enter__(self) -> Claims:
        if self._file is not None:
            self._file.turn.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            fcntl.lockf(self._file.fd, fcntl.LOCK_UN, 0, 0)
            self._file.turn.release()

    def try_claim(self, first: int, last: int) -> bool:
        """Claims the slots from first to last, both included, unless another process has one of them."""
        if self._file is None:
            return True
        try:
            fcntl.lockf(self._file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, *self._place(first, last))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def begin(self, first: int, last: int) -> bool:
        """Counts a claim of these slots; whether others had any of them when or since this object was made."""
        if self._file is None:
            return False
        counts = self._counts(first, last + 1)
        before = self._before[first : last + 1]
        self._write(first, [count + 2 if count % 2 else count + 1 for count in counts])
        return counts != before or any(count % 2 for count in before)

    def progress(self) -> bytes:
        """Something that changes whenever somebody claims anything."""
        return self._counts(0, SLOTS).tobytes()

    def release(self, first: int, last: int) -> None:
        """Gives the slots back. What was made for them must be seen by others by now."""
        if self._file is not None:
            self._write(first, [count + count % 2 for count in self._counts(first, last + 1)])
            fcntl.lockf(self._file.fd, fcntl.LOCK_UN, *self._place(first, last))

    def _counts(self, first: int, end: int) -> array[int]:
        counts = array("I")
        if self._file is not None:
            read = os.pread(self._file.fd, (end - first) * _WIDTH, first * _WIDTH)
            counts.frombytes(read[: len(read) // _WIDTH * _WIDTH])
        counts.extend([0] * (end - first - len(counts)))
        return counts

    def _write(self, first: int, counts: list[int]) -> None:
        assert self._file is not None
        wrapped = array("I", [count & 0xFFFFFFFF for count in counts])
        os.pwrite(self._file.fd, wrapped.tobytes(), first * _WIDTH)

    @staticmethod
    def _place(first: int, last: int) -> tuple[int, int]:
        return (last + 1 - first) * _WIDTH, first * _WIDTH
