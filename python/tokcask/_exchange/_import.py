"""import_tokens(): other programs' files into a store."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from tokcask._core import CachedTokens, CacheKey, EntryReader, TokenizedCache
from tokcask._errors import DamagedError
from tokcask._exchange._batch import Batch, Int32s, tokenizer_sha_of
from tokcask._exchange._readers import Document, MegatronSource, ParquetSource, Source

_BATCH_DOCUMENTS = 4096
_BATCH_TOKENS = 4 << 20
_NAMED = 20  # conflicts
_Tokens = tuple[Int32s, Int32s | None]


@dataclasses.dataclass(slots=True)
class ImportReport:
    """What import_tokens() did. records is the sum of imported, already_there, replaced and conflicts."""

    format: str
    records: int = 0
    """Documents of the source."""
    tokens: int = 0
    """Of these."""
    imported: int = 0
    already_there: int = 0
    """Documents whose key has the same tokens, in the store or of a document before."""
    replaced: int = 0
    conflicts: int = 0
    """Documents whose key has other tokens, and which were left out."""
    declined: int = 0
    """Entries that the budget had no room for."""
    evicted: int = 0
    bytes_after: int = 0
    """total_bytes of the store afterwards."""
    conflicting: list[str] = dataclasses.field(default_factory=list)
    """The canonical keys of the first 20 conflicts."""


def content_section(ids: Int32s, mask: Int32s | None = None) -> str:
    """The section of a document that has no name: 32 hex digits of the hash of its ids."""
    digest = hashlib.sha256(b"tokens\0" + ids.astype("<i4", copy=False).tobytes())
    if mask is not None:
        digest.update(b"mask\0" + mask.astype("<i4", copy=False).tobytes())
    return digest.hexdigest()[:32]


@dataclasses.dataclass(frozen=True, slots=True)
class _Keys:
    """Makes keys, of what the source tells and of what the caller gave."""

    name: str
    tokenizer_sha: str | None
    sequence_len: int | None
    by_index: bool

    def of(self, document: Document, number: int) -> CacheKey:
        sha = self._one("tokenizer_sha", document.tokenizer_sha, self.tokenizer_sha, number)
        length = self._one("sequence_len", document.sequence_len, self.sequence_len, number)
        if len(document.ids) > length:
            raise ValueError(
                f"{self.name}: document {number} has {len(document.ids)} tokens, more than its sequence length {length}"
            )
        section = document.section_id
        if section is None:
            section = (
                f"{self.name}-{number:012d}"
                if self.by_index
                else content_section(document.ids, document.mask)
            )
        try:
            return CacheKey(section, sha, length)
        except ValueError as error:
            raise DamagedError(f"{self.name}: document {number}: {error}") from error

    def _one(self, field: str, told: Any, given: Any, number: int) -> Any:
        if told is None and given is None:
            raise ValueError(f"{self.name}: document {number} tells no {field}; give it")
        if told is not None and given is not None and told != given:
            raise ValueError(f"{self.name}: document {number} is of {field} {told}, not {given}")
        return given if told is None else told


def _normal(mask: Int32s | None) -> Int32s | None:
    """None for all ones."""
    return None if mask is None or bool((mask == 1).all()) else mask


def _same(a: _Tokens, b: _Tokens) -> bool:
    if not np.array_equal(a[0], b[0]) or (a[1] is None) != (b[1] is None):
        return False
    return a[1] is None or b[1] is None or np.array_equal(a[1], b[1])


def _without_eod(document: Document, eod: int) -> Document:
    if len(document.ids) == 0 or document.ids[-1] != eod:
        return document
    mask = None if document.mask is None else document.mask[:-1]
    return dataclasses.replace(document, ids=document.ids[:-1], mask=mask)


class _Import:
    """One import that runs."""

    def __init__(
        self, cache: TokenizedCache, reader: EntryReader, replace: bool, report: ImportReport
    ) -> None:
        self._cache = cache
        self._reader = reader
        self._replace = replace
        self._report = report

    def put(self, batch: list[tuple[CacheKey, _Tokens]]) -> None:
        """Commits what of the batch is new."""
        there = self._committed([key for key, _ in batch])
        new: dict[CacheKey, _Tokens] = {}
        for key, tokens in batch:
            before = new.get(key) or there.get(key)
            if before is None:
                self._report.imported += 1
            elif _same(before, tokens):
                self._report.already_there += 1
                continue
            elif self._replace:
                self._report.replaced += 1
            else:
                self._report.conflicts += 1
                if len(self._report.conflicting) < _NAMED:
                    self._report.conflicting.append(str(key))
                continue
            new[key] = tokens
        self._cache.put_many((key, CachedTokens(ids, mask)) for key, (ids, mask) in new.items())
        # The next batch compares with what is committed.
        self._cache.flush()

    def _committed(self, keys: list[CacheKey]) -> dict[CacheKey, _Tokens]:
        found = Batch(*self._reader.fetch(keys))
        if not found.keys:
            return {}
        rows = enumerate(zip(found.keys, found.rows(), strict=True))
        return {key: (ids, _normal(found.masks.get(row))) for row, (key, ids) in rows}


def _batches(
    source: Source, keys: _Keys, eod: int | None, report: ImportReport
) -> Iterator[list[tuple[CacheKey, _Tokens]]]:
    # The token at the end does not count.
    longest = None if keys.sequence_len is None else keys.sequence_len + (eod is not None)
    batch: list[tuple[CacheKey, _Tokens]] = []
    tokens = 0
    for number, document in enumerate(source.documents(longest)):
        if eod is not None:
            document = _without_eod(document, eod)
        document.mask = _normal(document.mask)
        batch.append((keys.of(document, number), (document.ids, document.mask)))
        tokens += len(document.ids)
        report.records += 1
        report.tokens += len(document.ids)
        if tokens >= _BATCH_TOKENS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, tokens = [], 0
    if batch:
        yield batch


def _given_sha(tokenizer: str | None) -> str | None:
    if tokenizer is None:
        return None
    sha = tokenizer_sha_of(tokenizer)
    if sha is not None:
        return sha
    if re.fullmatch("[0-9a-f]{64}", tokenizer):
        return tokenizer
    raise ValueError(f"tokenizer: {tokenizer} is neither a file nor a sha of 64 hex digits")


def import_tokens(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    format: Literal["megatron", "parquet"],
    tokenizer: str | None = None,
    sequence_len: int | None = None,
    section: Literal["content", "index"] = "content",
    eod: int | None = None,
    replace: bool = False,
    max_bytes: int | None = None,
    shrink: bool = False,
    on_progress: Callable[[int, int], object] | None = None,
) -> ImportReport:
    """Puts the documents of a file of another program into the store in directory `store`, made if need be.

    format        'megatron': source.bin and source.idx; 'parquet': a file with a column input_ids of lists of
                  integers, and attention_mask, section_id, tokenizer_sha and sequence_len where it has them
    tokenizer     what made the tokens: its file, or its sha. Megatron's files do not tell
    sequence_len  the sequence length that they were made for, likewise. A longer document is a ValueError
    section       the section of a document without section_id: 'content', 32 hex digits of the SHA-256 of b"tokens"
                  and a NUL byte, then the ids as int32 (and b"mask", a NUL byte and the mask, if it is not all
                  ones), or 'index', the name of the file and the document's number
    eod           take this token off the end of each document, where it is there
    replace       where the store has other tokens under a key, take those of the source
    max_bytes     as in TokenizedCache.open()
    shrink        as in TokenizedCache.open()
    on_progress   called with the documents done and their number; what it raises ends the import

    Importing again changes nothing, and goes on where one was stopped: each batch is committed. Raises
    DamagedError for a file that is not what it should be, with the store made and filled up to that place at
    most; FileNotFoundError; ValueError; ImportError that names the extra to install; and what
    TokenizedCache.open() raises.
    """
    if section not in ("content", "index"):
        raise ValueError(f"section must be content or index, not {section}")
    if eod is not None and not 0 <= eod < 2**31:
        raise ValueError("eod must be a token id: at least 0 and below 2**31")
    path = pathlib.Path(os.fsdecode(source))
    opened: Source
    match format:
        case "megatron":
            opened = MegatronSource(path)
        case "parquet":
            opened = ParquetSource(path)
        case _:
            raise ValueError(f"format must be megatron or parquet, not {format}")
    keys = _Keys(opened.name, _given_sha(tokenizer), sequence_len, section == "index")
    if opened.needs_key and (keys.tokenizer_sha is None or keys.sequence_len is None):
        raise ValueError(
            f"{opened.name} does not tell tokenizer and sequence length; give tokenizer (--tokenizer) and "
            "sequence_len (--seq-len)"
        )
    report = ImportReport(format)
    with TokenizedCache.open(store, max_bytes=max_bytes, shrink=shrink) as cache:
        reader = EntryReader(store)
        try:
            running = _Import(cache, reader, replace, report)
            for batch in _batches(opened, keys, eod, report):
                running.put(batch)
                if on_progress is not None:
                    on_progress(report.records, opened.count)
        finally:
            reader.close()
        figures = cache.stats()
        report.declined = figures["run"]["declined"]
        report.evicted = figures["run"]["evicted"]
        report.bytes_after = figures["total_bytes"]
    return report
