"""A flat file of token ids, narrow as long as they fit."""

from __future__ import annotations

import os
import pathlib
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tokcask._exchange._batch import Int32s

_WIDEN_BYTES = 16 << 20


class TokenFile:
    """Ids as little-endian integers of one type: `dtype`, or uint16 until one does not fit, and `wide` then."""

    def __init__(self, path: pathlib.Path, dtype: str | None, wide: str) -> None:
        self._path = path
        self._widens = dtype is None
        self._wide = np.dtype(wide).newbyteorder("<")
        self.dtype: np.dtype[Any] = np.dtype(dtype or "uint16").newbyteorder("<")
        self._file = path.open("xb")

    def write(self, ids: Int32s) -> None:
        """Appends the ids. ValueError for one that does not fit."""
        if ids.size == 0:
            return
        lowest, highest = int(ids.min()), int(ids.max())
        if self._widens and not self._fits(self.dtype, lowest, highest):
            self._widen()
        if not self._fits(self.dtype, lowest, highest):
            value = lowest if lowest < 0 else highest
            raise ValueError(f"the token id {value} does not fit into {self.dtype.name}")
        self._file.write(ids.astype(self.dtype, copy=False).data)

    @staticmethod
    def _fits(dtype: np.dtype[Any], lowest: int, highest: int) -> bool:
        limits: Any = np.iinfo(dtype)
        return bool(limits.min <= lowest and highest <= limits.max)

    def _widen(self) -> None:
        """Writes what there is once more, in the wide type."""
        self._file.close()
        narrow = self._path.with_name(f".{self._path.name.removeprefix('.').removesuffix('.tmp')}.narrow.tmp")
        self._path.rename(narrow)
        try:
            self._file = self._path.open("xb")
            with narrow.open("rb") as file:
                while data := file.read(_WIDEN_BYTES):
                    values: npt.NDArray[Any] = np.frombuffer(data, self.dtype)
                    self._file.write(values.astype(self._wide).data)
        finally:
            os.unlink(narrow)
        self.dtype = self._wide
        self._widens = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
