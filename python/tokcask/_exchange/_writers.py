"""One writer per format: begun with a name, given batches, finished or forgotten."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tokcask._exchange._batch import Batch, Selection
from tokcask._exchange._tokenfile import TokenFile
from tokcask._staging import StagedDirectory, StagedFiles


class Writer(Protocol):
    """What all have in common."""

    keeps_masks: bool
    keeps_empty: bool  # entries without a token

    @property
    def dtype(self) -> str:
        """Of the ids; final after the last write."""

    def write(self, batch: Batch) -> None:
        """Appends the entries of a batch."""

    def finish(self) -> list[pathlib.Path]:
        """Gives the output its name, and returns its files."""


def missing(package: str, extra: str, error: ImportError) -> ImportError:
    """The error for a package that is not installed."""
    return ImportError(
        f"the format {extra} needs the package {package}: pip install 'tokcask[{extra}]' ({error})"
    )


def _flat_dtype(dtype: str | None, allowed: tuple[str, ...], format: str) -> str | None:
    if dtype is not None and dtype not in allowed:
        raise ValueError(f"{format} takes the dtype {' or '.join(allowed)}, not {dtype}")
    return dtype


def _beside(out: pathlib.Path, ending: str) -> pathlib.Path:
    return out.with_name(out.name + ending)


class _Lengths:
    """The lengths of all documents, 4 bytes each."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.int32]] = []

    def add(self, lengths: npt.NDArray[np.int64]) -> None:
        self._parts.append(lengths.astype("<i4"))

    def all(self) -> npt.NDArray[np.int32]:
        return np.concatenate(self._parts) if self._parts else np.zeros(0, "<i4")


# Megatron-LM, megatron/core/datasets/indexed_dataset.py: _IndexWriter and DType.
MEGATRON_MAGIC = b"MMIDIDX\0\0"
MEGATRON_CODES: dict[int, str] = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


class MegatronWriter:
    """OUT.bin and OUT.idx, one sequence and one document per entry."""

    keeps_masks = False
    keeps_empty = True

    def __init__(
        self, stack: contextlib.ExitStack, out: pathlib.Path, dtype: str | None, overwrite: bool
    ) -> None:
        _flat_dtype(dtype, ("uint16", "int32"), "megatron")
        out = megatron_prefix(out)
        self._bin, self._idx = _beside(out, ".bin"), _beside(out, ".idx")
        # The index is what a reader opens first, so it comes last.
        self._staged = stack.enter_context(StagedFiles([self._bin, self._idx], overwrite=overwrite))
        self._tokens = stack.enter_context(TokenFile(self._staged.path(self._bin), dtype, "int32"))
        self._lengths = _Lengths()

    @property
    def dtype(self) -> str:
        return self._tokens.dtype.name

    def write(self, batch: Batch) -> None:
        self._tokens.write(batch.ids)
        self._lengths.add(batch.lengths)

    def finish(self) -> list[pathlib.Path]:
        with self._tokens:
            pass
        lengths = self._lengths.all()
        if not lengths.any():
            raise ValueError("megatron: there is not one token to export, and its reader takes no empty file")
        size = self._tokens.dtype.itemsize
        code = {2: 8, 4: 4}[size]
        with self._staged.path(self._idx).open("xb") as file:
            file.write(MEGATRON_MAGIC)
            file.write(np.uint64(1).astype("<u8").tobytes())
            file.write(bytes([code]))
            file.write(np.array([len(lengths), len(lengths) + 1], "<u8").tobytes())
            file.write(lengths.data)
            ends = np.cumsum(lengths, dtype="<i8")
            ends *= size
            file.write(np.zeros(1, "<i8").tobytes())
            file.write(ends[:-1].data)
            file.write(np.arange(len(lengths) + 1, dtype="<i8").data)
        return self._staged.publish()


def megatron_prefix(path: pathlib.Path) -> pathlib.Path:
    """The path without .bin or .idx, which may be given too."""
    return path.with_suffix("") if path.suffix in (".bin", ".idx") else path


class DatatroveWriter:
    """OUT.ds, OUT.ds.index and OUT.ds.metadata, as datatrove/pipeline/tokens/tokenizer.py: TokenizedFile."""

    keeps_masks = False
    keeps_empty = True

    def __init__(
        self,
        stack: contextlib.ExitStack,
        out: pathlib.Path,
        dtype: str | None,
        overwrite: bool,
        selection: Selection,
    ) -> None:
        _flat_dtype(dtype, ("uint16", "uint32"), "datatrove")
        name = out if out.suffix == ".ds" else _beside(out, ".ds")
        self._ds, self._index, self._metadata = name, _beside(name, ".index"), _beside(name, ".metadata")
        # Its folder reader looks for .ds files, so that one comes last.
        files = [self._index, self._metadata, self._ds]
        self._staged = stack.enter_context(StagedFiles(files, overwrite=overwrite))
        self._tokens = stack.enter_context(TokenFile(self._staged.path(self._ds), dtype, "uint32"))
        self._lengths = _Lengths()
        self._sha = selection.tokenizer_sha

    @property
    def dtype(self) -> str:
        return self._tokens.dtype.name

    def write(self, batch: Batch) -> None:
        self._tokens.write(batch.ids)
        self._lengths.add(batch.lengths)

    def finish(self) -> list[pathlib.Path]:
        with self._tokens:
            pass
        ends = np.cumsum(self._lengths.all(), dtype="<u8")
        total = int(ends[-1]) if len(ends) else 0
        with self._staged.path(self._index).open("xb") as file:
            file.write(ends.data)
        text = f"{self._sha}|{self._tokens.dtype.itemsize}\n{total}\n{_in_short(total)}T"
        with self._staged.path(self._metadata).open("x", encoding="utf-8") as metadata:
            metadata.write(text)
        return self._staged.publish()


def _in_short(count: int) -> str:
    """28,081,313 as '28.1 M', the third line of datatrove's metadata, which is for people."""
    value = float(count)
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000:
            break
        value /= 1000
    return f"{value:.3g} {unit}"


class MdsWriter:
    """A directory of MosaicML Streaming shards, by its own MDSWriter."""

    keeps_masks = False
    keeps_empty = False  # its arrays have at least one element

    def __init__(
        self, stack: contextlib.ExitStack, out: pathlib.Path, dtype: str | None, overwrite: bool
    ) -> None:
        self._dtype = _flat_dtype(dtype, ("int32", "uint16"), "mds") or "int32"
        try:
            from streaming import MDSWriter
        except ImportError as error:
            raise missing("mosaicml-streaming", "mds", error) from error
        self._staged = stack.enter_context(StagedDirectory(out, marker="index.json", overwrite=overwrite))
        columns = {
            "tokens": f"ndarray:{self._dtype}",
            "section_id": "str",
            "tokenizer_sha": "str",
            "sequence_len": "int32",
        }
        self._writer: Any = MDSWriter(columns=columns, out=str(self._staged.path))

    @property
    def dtype(self) -> str:
        return self._dtype

    def write(self, batch: Batch) -> None:
        limits = np.iinfo(self._dtype)
        if batch.ids.size and (batch.ids.min() < limits.min or batch.ids.max() > limits.max):
            raise ValueError(f"a token id does not fit into {self._dtype}")
        for key, ids in zip(batch.keys, batch.rows(), strict=True):
            if ids.size == 0:
                continue
            self._writer.write(
                {
                    "tokens": ids.astype(self._dtype),
                    "section_id": key.section_id,
                    "tokenizer_sha": key.tokenizer_sha,
                    "sequence_len": np.int32(key.sequence_len),
                }
            )

    def finish(self) -> list[pathlib.Path]:
        self._writer.finish()
        return self._staged.publish()


class ParquetWriter:
    """One file with a row per entry, by PyArrow."""

    keeps_masks = True
    keeps_empty = True
    # What is held before a row group is written.
    _GROUP_TOKENS = 4 << 20
    _GROUP_ROWS = 128 << 10

    def __init__(
        self, stack: contextlib.ExitStack, out: pathlib.Path, dtype: str | None, overwrite: bool
    ) -> None:
        _flat_dtype(dtype, ("int32",), "parquet")
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise missing("pyarrow", "parquet", error) from error
        self._pa = pa
        self._staged = stack.enter_context(StagedFiles([out], overwrite=overwrite))
        self._out = out
        self._schema = pa.schema(
            [
                pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
                # Null: all ones, as nearly every mask is.
                pa.field("attention_mask", pa.list_(pa.int32())),
                pa.field("section_id", pa.string(), nullable=False),
                pa.field("tokenizer_sha", pa.string(), nullable=False),
                pa.field("sequence_len", pa.int32(), nullable=False),
            ]
        )
        self._file: Any = stack.enter_context(
            pq.ParquetWriter(
                str(self._staged.path(out)),
                self._schema,
                compression="zstd",
                use_dictionary=["tokenizer_sha", "sequence_len"],
            )
        )
        self._group: list[Batch] = []
        self._rows = 0
        self._tokens = 0

    @property
    def dtype(self) -> str:
        return "int32"

    def write(self, batch: Batch) -> None:
        if self._tokens + batch.ids.size > self._GROUP_TOKENS or self._rows >= self._GROUP_ROWS:
            self._write_group()
        self._group.append(batch)
        self._rows += len(batch.keys)
        self._tokens += batch.ids.size

    def _write_group(self) -> None:
        if not self._group:
            return
        pa = self._pa
        lengths = np.concatenate([batch.lengths for batch in self._group])
        offsets = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        ids = np.concatenate([batch.ids for batch in self._group])
        keys = [key for batch in self._group for key in batch.keys]
        masks = [batch.masks.get(row) for batch in self._group for row in range(len(batch.keys))]
        columns = [
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids)),
            pa.array(masks, pa.list_(pa.int32())),
            pa.array([key.section_id for key in keys], pa.string()),
            pa.array([key.tokenizer_sha for key in keys], pa.string()),
            pa.array([key.sequence_len for key in keys], pa.int32()),
        ]
        self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=len(keys))
        self._group, self._rows, self._tokens = [], 0, 0

    def finish(self) -> list[pathlib.Path]:
        self._write_group()
        self._file.close()
        return self._staged.publish()
