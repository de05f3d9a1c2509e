"""Documents of other programs' files. Nothing in a file is trusted: what is wrong with it is a DamagedError."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from tokcask._arrays import as_int32
from tokcask._errors import DamagedError
from tokcask._exchange._batch import Int32s
from tokcask._exchange._writers import MEGATRON_CODES, MEGATRON_MAGIC, megatron_prefix, missing


@dataclasses.dataclass(slots=True)
class Document:
    """One document; what the file does not tell of its key is None."""

    ids: Int32s
    mask: Int32s | None = None
    section_id: str | None = None
    tokenizer_sha: str | None = None
    sequence_len: int | None = None


class Source(Protocol):
    """A file that is open."""

    name: str
    count: int
    needs_key: bool  # tokenizer and sequence length are not in it

    def documents(self, longest: int | None) -> Iterator[Document]:
        """All documents in their order. ValueError for one with more tokens than `longest`, before it is read."""


class MegatronSource:
    """A .bin and .idx of Megatron's IndexedDataset. Its index is checked as a whole when it is opened."""

    needs_key = True
    _HEADER = struct.Struct("<9sQBQQ")
    _CHUNK = 1 << 16

    def __init__(self, path: pathlib.Path) -> None:
        prefix = megatron_prefix(path)
        self.name = prefix.name
        self._idx_path = prefix.with_name(prefix.name + ".idx")
        bin_path = prefix.with_name(prefix.name + ".bin")
        for file in (self._idx_path, bin_path):
            if not file.is_file():
                raise FileNotFoundError(
                    f"{file} is not there; a data set of Megatron is a .bin and an .idx file"
                )
        with self._idx_path.open("rb") as idx, bin_path.open("rb"):
            self._read_header(idx)
        self._bin: IO[bytes] = bin_path.open("rb")
        self._idx: IO[bytes] = self._idx_path.open("rb")
        self._bin_bytes = os.fstat(self._bin.fileno()).st_size
        self._check()

    def _damaged(self, what: str) -> DamagedError:
        return DamagedError(f"{self._idx_path}: {what}")

    def _read_header(self, idx: IO[bytes]) -> None:
        header = idx.read(self._HEADER.size)
        if len(header) < self._HEADER.size or not header.startswith(MEGATRON_MAGIC):
            raise self._damaged("not an index of Megatron's IndexedDataset")
        _, version, code, self._sequences, documents = self._HEADER.unpack(header)
        if version != 1:
            raise self._damaged(f"its version is {version}, not 1")
        if code not in MEGATRON_CODES:
            raise self._damaged(f"its type code {code} is not one of integers")
        self._dtype = np.dtype(MEGATRON_CODES[code])
        self._pointers_at = self._HEADER.size + 4 * self._sequences
        self._documents_at = self._pointers_at + 8 * self._sequences
        wanted = self._documents_at + 8 * documents
        size = os.fstat(idx.fileno()).st_size
        # A byte per sequence follows in multimodal files.
        if size not in (wanted, wanted + self._sequences):
            raise self._damaged(
                f"it has {size} bytes, but {self._sequences} sequences and {documents} document ends take {wanted}"
            )
        # Without document ends, each sequence is a document.
        self._by_sequence = documents <= 1
        self.count = self._sequences if self._by_sequence else documents - 1

    def _array(self, start: int, dtype: str, first: int, count: int) -> npt.NDArray[np.int64]:
        item = np.dtype(dtype).itemsize
        data = os.pread(self._idx.fileno(), item * count, start + item * first)
        if len(data) != item * count:
            raise self._damaged("it was cut off while it was read")
        return np.frombuffer(data, dtype).astype(np.int64)

    def _lengths(self, first: int, count: int) -> npt.NDArray[np.int64]:
        return self._array(self._HEADER.size, "<i4", first, count)

    def _pointers(self, first: int, count: int) -> npt.NDArray[np.int64]:
        return self._array(self._pointers_at, "<i8", first, count)

    def _check(self) -> None:
        for first in range(0, self._sequences, self._CHUNK):
            count = min(self._CHUNK, self._sequences - first)
            lengths, pointers = self._lengths(first, count), self._pointers(first, count)
            room = (self._bin_bytes - pointers) // self._dtype.itemsize
            for wrong, what in (
                (lengths < 0, "a negative length"),
                (pointers < 0, "a negative offset"),
                (pointers % self._dtype.itemsize != 0, "an offset inside a token"),
                ((pointers > self._bin_bytes) | (lengths > room), "tokens behind the end of the .bin file"),
            ):
                if wrong.any():
                    raise self._damaged(f"sequence {first + int(np.argmax(wrong))} has {what}")
        if not self._by_sequence:
            self._check_documents()

    def _check_documents(self) -> None:
        end = 0
        for first in range(0, self.count + 1, self._CHUNK):
            count = min(self._CHUNK, self.count + 1 - first)
            ends = self._array(self._documents_at, "<i8", first, count)
            if first == 0 and ends[0] != 0:
                raise self._damaged("its first document does not begin at sequence 0")
            if ends[0] < end or (np.diff(ends) < 0).any() or ends[-1] > self._sequences:
                raise self._damaged("its document ends are not in order, or behind the last sequence")
            end = int(ends[-1])
        if end != self._sequences:
            raise self._damaged(f"sequence {end} and those behind it belong to no document")

    def _parts(self) -> Iterator[tuple[int, int]]:
        """The sequences of each document: first, and behind the last."""
        if self._by_sequence:
            yield from ((n, n + 1) for n in range(self._sequences))
            return
        for first in range(0, self.count, self._CHUNK):
            count = min(self._CHUNK, self.count - first)
            ends = self._array(self._documents_at, "<i8", first, count + 1).tolist()
            yield from itertools.pairwise(ends)

    def documents(self, longest: int | None) -> Iterator[Document]:
        chunk, lengths, pointers = range(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
        for number, (first, end) in enumerate(self._parts()):
            parts = []
            total = 0
            for sequence in range(first, end):
                if sequence not in chunk:
                    chunk = range(sequence, min(sequence + self._CHUNK, self._sequences))
                    lengths = self._lengths(chunk.start, len(chunk))
                    pointers = self._pointers(chunk.start, len(chunk))
                length = int(lengths[sequence - chunk.start])
                total += length
                if longest is not None and total > longest:
                    raise ValueError(_too_long(self.name, number, total, longest))
                parts.append(self._tokens(int(pointers[sequence - chunk.start]), length))
            ids = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, self._dtype), *parts])
            yield Document(_checked(ids, self.name, number))

    def _tokens(self, pointer: int, length: int) -> npt.NDArray[Any]:
        data = os.pread(self._bin.fileno(), length * self._dtype.itemsize, pointer)
        if len(data) != length * self._dtype.itemsize:
            raise self._damaged("the .bin file was cut off while it was read")
        return np.frombuffer(data, self._dtype)


def _too_long(name: str, number: int, tokens: int, longest: int) -> str:
    return (
        f"{name}: document {number} has {tokens} tokens or more, and the sequence length is {longest}; give the one "
        "that it was made for (--seq-len)"
    )


def _checked(ids: npt.NDArray[Any], name: str, number: int) -> Int32s:
    try:
        return as_int32(ids, f"{name}: document {number}")
    except ValueError as error:
        raise DamagedError(str(error)) from error


class ParquetSource:
    """A Parquet file with a column of lists of token ids."""

    _ROWS = 1024

    def __init__(self, path: pathlib.Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise missing("pyarrow", "parquet", error) from error
        self._pa = pa
        self.name = path.name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file")
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise DamagedError(f"{path}: not a Parquet file that can be read: {error}") from error
        self.count: int = self._file.metadata.num_rows
        self._columns = self._checked_columns()
        self.needs_key = not {"tokenizer_sha", "sequence_len"} <= set(self._columns)

    def _checked_columns(self) -> list[str]:
        types = self._pa.types
        schema = self._file.schema_arrow

        def lists_of_integers(kind: Any) -> bool:
            is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
            return bool(is_list and types.is_integer(kind.value_type))

        def text(kind: Any) -> bool:
            return bool(types.is_string(kind) or types.is_large_string(kind))

        checks = {
            "input_ids": (lists_of_integers, "lists of integers"),
            "attention_mask": (lists_of_integers, "lists of integers"),
            "section_id": (text, "text"),
            "tokenizer_sha": (text, "text"),
            "sequence_len": (types.is_integer, "integers"),
        }
        if "input_ids" not in schema.names:
            raise DamagedError(
                f"{self.name}: no column input_ids; it has {', '.join(schema.names) or 'none'}"
            )
        columns = [name for name in checks if name in schema.names]
        for name in columns:
            is_right, what = checks[name]
            kind = schema.field(name).type
            if types.is_dictionary(kind):
                kind = kind.value_type
            if not is_right(kind):
                raise DamagedError(f"{self.name}: the column {name} holds {kind}, not {what}")
        return columns

    def documents(self, longest: int | None) -> Iterator[Document]:
        number = 0
        batches = self._file.iter_batches(batch_size=self._ROWS, columns=self._columns)
        while True:
            try:
                batch = next(batches, None)
            except (self._pa.ArrowException, OSError) as error:
                raise DamagedError(f"{self.name}: damaged behind row {number}: {error}") from error
            if batch is None:
                return
            for document in self._rows(batch, number, longest):
                yield document
                number += 1

    def _rows(self, batch: Any, number: int, longest: int | None) -> Iterator[Document]:
        columns = {name: batch.column(name) for name in self._columns}
        keys = {
            name: column.to_pylist()
            for name, column in columns.items()
            if name not in ("input_ids", "attention_mask")
        }
        for row in range(batch.num_rows):
            ids = self._list(columns["input_ids"][row], "input_ids", number + row)
            if ids is None:
                raise DamagedError(f"{self.name}: row {number + row}: input_ids is null")
            if longest is not None and len(ids) > longest:
                raise ValueError(_too_long(self.name, number + row, len(ids), longest))
            mask = None
            if "attention_mask" in columns:
                mask = self._list(columns["attention_mask"][row], "attention_mask", number + row)
            if mask is not None and len(mask) != len(ids):
                raise DamagedError(
                    f"{self.name}: row {number + row}: attention_mask has {len(mask)} elements, input_ids {len(ids)}"
                )
            yield Document(ids, mask, **{name: values[row] for name, values in keys.items()})

    def _list(self, value: Any, name: str, row: int) -> Int32s | None:
        values = value.values
        if values is None:
            return None
        if values.null_count:
            raise DamagedError(f"{self.name}: row {row}: {name} holds a null")
        return _checked(values.to_numpy(zero_copy_only=False), self.name, row)
