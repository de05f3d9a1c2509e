"""Parts of a store: each is filled by one attempt at one share of a corpus, and all are merged at the end.

    STORE                        where the entries end up
    STORE.parts/.SHARE.*.tmp     an attempt: one process fills a store in it, and holds a lock (flock) while it lives
    STORE.parts/SHARE.*          a part: the closed store of an attempt that came to its end

A part appears in one rename, after everything in it is on stable storage: it is whole or not there. Attempts at one
share, one after the other or at the same time, are different directories, and if two come to an end there are two
parts. Keys are made of content, so what both have is the same, and merges into one.

What a killed process leaves is removed by the next attempt or merge: the kernel drops the lock when a process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from tokcask._adapters import adapted
from tokcask._core import MergeReport, TokenizedCache, merge
from tokcask._encoding import Encoder, Recipe, Section
from tokcask._filling import Store, Tokenizing, chunks
from tokcask._identity import tokenizer_sha256
from tokcask._rows import RowReader, is_preference, length_of
from tokcask._staging import StagedDirectory, sync

# The file that a closed store is.
_DATA = "data.mdb"
# The disk is what limits a part.
_NO_CAP = 1 << 40
# Each open store takes file descriptors and address space.
_MERGED_AT_ONCE = 64

Label = TypeVar("Label")


class Tokenization:
    """A tokenizer, its identity, and a length. Picklable if the tokenizer is."""

    def __init__(self, tokenizer: Any, sequence_len: int) -> None:
        self.tokenizer = adapted(tokenizer)
        self.sha = tokenizer_sha256(self.tokenizer)
        self.length = length_of(sequence_len)

    def __repr__(self) -> str:
        return f"{type(self.tokenizer).__name__} {self.sha[:8]}, sequence length {self.length}"


class MergedParts(NamedTuple):
    """What Parts.merge() did."""

    parts: int = 0
    entries: int = 0
    """In the parts."""
    merged: int = 0
    """Those that were put. The store had the others, or several parts have them."""


class Parts:
    """The parts of one store.

    store    the directory of the store that they are merged into, on a local disk
    shared   where the parts go instead of beside the store: a directory that is there and that all machines see.
             Attempts are made beside the store nevertheless, on each machine's own disk, and copied when they are whole
    """

    def __init__(self, store: str | os.PathLike[str], shared: str | os.PathLike[str] | None = None) -> None:
        self.store = pathlib.Path(store).resolve()
        self._attempts = self.store.with_name(f"{self.store.name}.parts")
        self.folder = self._attempts if shared is None else pathlib.Path(shared).resolve()
        self._machine = os.uname().nodename

    def __repr__(self) -> str:
        return f"{self.store}, parts in {self.folder}"

    def published(self, share: str = "*") -> list[pathlib.Path]:
        found = (file.parent for file in self.folder.glob(f"{share}.*/{_DATA}"))
        return sorted(part for part in found if not part.name.startswith("."))

    @contextlib.contextmanager
    def attempt(self, share: str, tokenization: Tokenization) -> Iterator[Attempt]:
        """An attempt at a share. What it stored becomes a part at the end, unless that is an exception."""
        self._make_folders()
        with self._private(share) as directory, contextlib.ExitStack() as opened:
            known = []
            for root in self._known(share):
                # It may have been merged and removed meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    cache = TokenizedCache.open(root, read_only=True, derive_lengths=False)
                    known.append(opened.enter_context(cache))
            with TokenizedCache.open(directory / "store", max_bytes=_NO_CAP) as cache:
                attempt = Attempt(cache, known, tokenization)
                yield attempt
                attempt.finish()
            if attempt.tokenized:
                self._publish(directory, f"{share}.{secrets.token_hex(4)}")

    def merge(self, max_bytes: int | None = None) -> MergedParts:
        """Merges all parts into the store, and removes them. One that was killed is begun again, and goes on.

        RuntimeError if entries could not be merged; the parts that have them stay.
        """
        total = MergedParts()
        failed: list[str] = []
        self._make_folders()
        if not self.published():
            return total
        self.store.mkdir(parents=True, exist_ok=True)
        with _locked(self.store):
            for parts in chunks(self.published(), _MERGED_AT_ONCE):
                with self._local(parts) as inputs:
                    report = merge(self.store, inputs, max_bytes=max_bytes)
                total = MergedParts(
                    total.parts + len(parts), total.entries + report.entries, total.merged + report.merged
                )
                if wrong := _what_is_wrong(report):
                    failed.append(f"from {parts[0].name} to {parts[-1].name} {wrong}")
                    continue
                for part in parts:
                    _remove(part)
        if failed:
            raise RuntimeError(
                f"not everything was merged into {self.store}: {'; '.join(failed)}. These parts stay in {self.folder}"
            )
        return total

    def _make_folders(self) -> None:
        """Makes the folder for attempts, and removes what killed ones left."""
        machine = os.uname().nodename
        if self.folder == self._attempts and machine != self._machine:
            raise ValueError(
                f"this is {machine}, and {self.store} was given on {self._machine}: with several machines, parts must "
                "be a directory that all of them see"
            )
        self._attempts.mkdir(parents=True, exist_ok=True)
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"{self.folder} is not a directory of {machine}; parts go there, so make it first"
            )
        with _locked(self._attempts):
            for directory in self._attempts.glob(".*.tmp"):
                with contextlib.suppress(FileNotFoundError, BlockingIOError), _locked(directory, wait=False):
                    shutil.rmtree(directory, ignore_errors=True)

    def _known(self, share: str) -> list[pathlib.Path]:
        """Stores whose entries need not be made again: an earlier attempt may have been killed when its part was there,
        but before anybody was told."""
        parts = self.published(share) if self.folder == self._attempts else []
        return [root for root in (self.store, *parts) if (root / _DATA).is_file()]

    @contextlib.contextmanager
    def _private(self, name: str) -> Iterator[pathlib.Path]:
        """A directory that is removed at the end, or by _make_folders() if this process does not live so long."""
        with contextlib.ExitStack() as lock:
            with _locked(self._attempts):  # so that it is not swept before it is locked
                made = tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=self._attempts)
                lock.enter_context(_locked(made))
            try:
                yield pathlib.Path(made)
            finally:
                shutil.rmtree(made, ignore_errors=True)

    def _publish(self, directory: pathlib.Path, name: str) -> None:
        """Makes a part of the closed store in an attempt's directory."""
        data, part = directory / "store" / _DATA, self.folder / name
        if self.folder != self._attempts:
            with StagedDirectory(part, marker=_DATA, overwrite=False) as staged:
                staged.path.mkdir()
                shutil.copyfile(data, staged.path / _DATA)
                staged.publish()
            return
        # Without the lock files and tables beside it.
        whole = directory / "part"
        whole.mkdir()
        data.rename(whole / _DATA)
        sync(whole)
        whole.rename(part)
        sync(self.folder)

    @contextlib.contextmanager
    def _local(self, parts: list[pathlib.Path]) -> Iterator[list[pathlib.Path]]:
        """The parts on a disk of this machine: a store is not opened on a network file system."""
        if self.folder == self._attempts:
            yield parts
            return
        with self._private("merge") as directory:
            for part in parts:
                (directory / part.name).mkdir()
                shutil.copyfile(part / _DATA, directory / part.name / _DATA)
            yield [directory / part.name for part in parts]


class Attempt:
    """The store of one attempt, being filled."""

    def __init__(self, cache: TokenizedCache, known: list[TokenizedCache], how: Tokenization) -> None:
        self.tokenized = 0
        """Texts that were tokenized: those that neither this attempt nor anybody before had made."""
        self.tokens = 0
        """In these texts."""
        self._cache = cache
        self._stores = [Store(of, how.sha, how.length, alone=True) for of in (cache, *known)]
        recipe = Recipe(how.length)
        self._encoder = Encoder(how.tokenizer, recipe)
        self._stores[0].declare(self._encoder.traits)
        self._reader = RowReader(how.tokenizer, recipe)
        self._in_the_making: set[str] = set()
        self._seconds = 0.0

    def fill(self, batches: Iterable[tuple[Label, Iterable[Mapping[str, Any]]]]) -> Iterator[Label]:
        """Tokenizes the rows of each batch, as pretokenize_rows() does, and hands its label on when they are stored."""
        with Tokenizing(self._encoder.make, self._encoder.in_flight) as tokenizing:
            for label, made in tokenizing.run((label, self._missing(rows)) for label, rows in batches):
                if made:
                    self._stores[0].add(made)
                self._in_the_making.difference_update(made)
                self.tokenized += len(made)
                self.tokens += sum(len(tokens.input_ids) for tokens in made.values())
                yield label
            self._seconds += tokenizing.seconds

    def finish(self) -> None:
        self._stores[0].finish(self._seconds)
        declined = self._cache.stats()["run"]["declined"]
        if declined:
            raise OSError(f"{self._cache.root}: no room for {declined} entries; is the disk full?")

    def _missing(self, rows: Iterable[Mapping[str, Any]]) -> list[Section]:
        read = (self._reader.section(place, row) for place, row in enumerate(rows) if not is_preference(row))
        missing = {section.id: section for section in read}
        for section in self._in_the_making.intersection(missing):
            del missing[section]
        for store in self._stores:
            for section in store.find(list(missing)):
                del missing[section]
        self._in_the_making.update(missing)
        return list(missing.values())


@contextlib.contextmanager
def _locked(directory: str | os.PathLike[str], *, wait: bool = True) -> Iterator[None]:
    """A lock that dies with this process. Without wait, BlockingIOError if another has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _remove(part: pathlib.Path) -> None:
    # Under another name first, so that what is left of it if this is killed is no part.
    doomed = part.with_name(f".{part.name}.tmp")
    part.rename(doomed)
    shutil.rmtree(doomed)


def _what_is_wrong(report: MergeReport) -> str:
    wrong = []
    if report.declined:
        wrong.append(f"{report.declined} entries had no room (give a larger max_bytes)")
    if report.conflicts:
        wrong.append(
            f"{report.conflicts} entries have other tokens than the store under the same key, e.g. "
            f"{report.conflicting[0]} (something that decides is not in the tokenizer's identity)"
        )
    if report.damaged:
        wrong.append(f"{report.damaged} entries are damaged (remove the part, and run its share again)")
    return ", ".join(wrong)
