"""export_tokens(): a store's entries in a format that other programs read."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from tokcask._core import EntryReader
from tokcask._exchange import _writers
from tokcask._exchange._batch import ORDERS, Batch, Selection, Walk, select

_LOG = logging.getLogger("tokcask")
FORMATS = ("megatron", "parquet", "mds", "datatrove")


@dataclasses.dataclass(frozen=True, slots=True)
class ExportReport:
    """What export_tokens() wrote."""

    format: str
    tokenizer_sha: str
    dtype: str
    """Of the ids."""
    records: int
    tokens: int
    """With the end-of-document tokens that were appended."""
    bytes: int
    """Of the files."""
    files: list[str]
    damaged: int
    """Records that were left out (order 'key')."""
    gone: int
    """Entries that went away while the export ran, or are damaged (orders 'path' and 'shuffle')."""
    empty: int
    """Entries without a token, left out because the format has no way to say that."""
    masks_dropped: int


class _Export:
    """One export that runs."""

    def __init__(self, writer: _writers.Writer, eod: int | None, drop_masks: bool, format: str) -> None:
        self._writer = writer
        self._eod = eod
        self._drop_masks = drop_masks
        self._format = format
        self.records = self.tokens = self.empty = self.masks_dropped = 0

    def write(self, batch: Batch) -> None:
        if batch.masks and not self._writer.keeps_masks:
            if not self._drop_masks:
                key = batch.keys[min(batch.masks)]
                raise ValueError(
                    f"{key} has an attention mask that is not all ones, which {self._format} cannot hold; export "
                    "to parquet, or leave masks out with drop_masks (--drop-masks)"
                )
            self.masks_dropped += len(batch.masks)
        if self._eod is not None:
            batch = batch.with_eod(self._eod)
        if not self._writer.keeps_empty:
            empty = int(np.count_nonzero(batch.lengths == 0))
            self.empty += empty
            self.records -= empty
        self._writer.write(batch)
        self.records += len(batch.keys)
        self.tokens += int(batch.ids.size)


def _writer(
    stack: contextlib.ExitStack,
    format: str,
    out: pathlib.Path,
    dtype: str | None,
    overwrite: bool,
    selection: Selection,
) -> _writers.Writer:
    match format:
        case "megatron":
            return _writers.MegatronWriter(stack, out, dtype, overwrite)
        case "parquet":
            return _writers.ParquetWriter(stack, out, dtype, overwrite)
        case "mds":
            return _writers.MdsWriter(stack, out, dtype, overwrite)
        case "datatrove":
            return _writers.DatatroveWriter(stack, out, dtype, overwrite, selection)
    raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format}")


def _checked_out(store: str | os.PathLike[str], out: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(os.fsdecode(out)).absolute()
    if not path.name or path.name == "..":
        raise ValueError(f"out: {os.fsdecode(out)!r} is no name for a file")
    directory = pathlib.Path(os.fsdecode(store)).resolve()
    if path.parent.resolve() == directory or path.resolve() == directory:
        raise ValueError(f"out: {path} is in the store itself")
    return path


def export_tokens(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: Literal["megatron", "parquet", "mds", "datatrove"],
    order: Literal["key", "path", "shuffle"] = "key",
    seed: int = 0,
    eod: int | None = None,
    tokenizer: str | None = None,
    sequence_len: int | None = None,
    dtype: Literal["uint16", "int32", "uint32"] | None = None,
    drop_masks: bool = False,
    overwrite: bool = False,
    allow_network_filesystem: bool = False,
    on_progress: Callable[[int, int], object] | None = None,
) -> ExportReport:
    """Writes the entries of the store in directory `store` in a format that other programs read.

    format        what becomes of `out`: 'megatron' writes out.bin and out.idx, 'parquet' the file out, 'mds' the
                  directory out, 'datatrove' out.ds, out.ds.index and out.ds.metadata
    order         'key'; 'path': as the files that `tokcask warm` read, directory by directory, the rest behind;
                  'shuffle': at random, the same for one seed
    eod           a token to append to each entry
    tokenizer     only entries of this tokenizer: its file, its sha, or how that begins
    sequence_len  only entries made for this length
    dtype         of the ids; None: uint16 if all fit and 32 bits otherwise (megatron, datatrove), else int32
    drop_masks    leave masks that are not all ones out where the format has none, rather than refuse
    overwrite     replace what is there
    on_progress   called with the entries done and their number; what it raises ends the export

    Nothing stands under these names before it is whole and on stable storage. Memory is bounded by a batch, 4
    bytes per entry, and for other orders than 'key' 20 more. Records no hit and no access; the store may be in
    use. Raises ValueError for entries of several tokenizers when none is chosen, for nothing to export, for
    an id or a mask that the format cannot hold, and for an entry with spans or labels, which no format here
    has a place for; FileExistsError; ImportError that names the extra to install;
    and what TokenizedCache.open() raises.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format}")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {order}")
    if not 0 <= seed < 2**64:
        raise ValueError("seed must be at least 0 and below 2**64")
    if eod is not None and not 0 <= eod < 2**31:
        raise ValueError("eod must be a token id: at least 0 and below 2**31")
    path = _checked_out(store, out)
    reader = EntryReader(store, allow_network_filesystem=allow_network_filesystem)
    try:
        selection, lengths = select(reader, tokenizer, sequence_len)
        if len(lengths) > 1:
            counts = ", ".join(f"{length} ({entries} entries)" for length, entries in lengths.items())
            _LOG.warning(
                "entries of %d sequence lengths are exported together, so a text may be there more than once: %s; "
                "sequence_len (--seq-len) chooses one",
                len(lengths),
                counts,
            )
        walk = Walk(reader, selection, order, seed)
        with contextlib.ExitStack() as stack:
            writer = _writer(stack, format, path, dtype, overwrite, selection)
            export = _Export(writer, eod, drop_masks, format)
            done = 0
            for batch in walk:
                export.write(batch)
                done += len(batch.keys)
                if on_progress is not None:
                    on_progress(done, selection.entries)
            if export.records == 0:
                raise ValueError("nothing to export: every entry is empty, damaged or gone")
            files = writer.finish()
    finally:
        reader.close()
    report = ExportReport(
        format=format,
        tokenizer_sha=selection.tokenizer_sha,
        dtype=writer.dtype,
        records=export.records,
        tokens=export.tokens,
        bytes=sum(file.stat().st_size for file in files),
        files=[str(file) for file in files],
        damaged=walk.damaged,
        gone=walk.gone,
        empty=export.empty,
        masks_dropped=export.masks_dropped,
    )
    _warn(report)
    return report


def _warn(report: ExportReport) -> None:
    for count, what in (
        (report.damaged, "damaged records were left out"),
        (report.gone, "entries went away meanwhile or are damaged, and are not in the export"),
        (report.empty, f"entries without a token were left out, which {report.format} cannot hold"),
        (report.masks_dropped, "attention masks that are not all ones were left out"),
    ):
        if count:
            _LOG.warning("%d %s", count, what)
