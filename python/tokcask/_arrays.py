"""Token arrays of whatever integer dtype as the int32 that is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokcask._core import CachedTokens

_INT32 = np.iinfo(np.int32)
PART_TYPES = ("int8", "uint8", "int16", "int32", "int64", "float16", "float32")
"""What arrays of an entry may hold."""


def of_integers(array: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """The array, or one of what was given. ValueError, which calls it `name`, for one of anything but integers."""
    result = np.asarray(array)
    if (
        result.ndim > 0 and result.size > 0 and result.dtype.kind not in "iu"
    ):  # an empty list has no integer dtype
        raise ValueError(f"{name} must hold integers; its dtype is {result.dtype}")
    return result


def as_int64(array: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    """A 1-D array of integers, as aligned native int64. ValueError, which calls the array `name`, for another one."""
    result = of_integers(array, name)
    if result.ndim != 1:
        raise ValueError(f"{name} must be 1-D; its shape is {result.shape}")
    return np.require(result, np.int64, ["C", "A"])


def as_spans(pairs: Any, name: str) -> npt.NDArray[np.int64]:
    """Pairs (begin, end) as an int64 array [spans, 2]. ValueError, which calls the pairs `name`, for anything else."""
    result = of_integers(pairs, name)
    if result.size == 0:
        return np.zeros((0, 2), np.int64)
    if result.ndim != 2 or result.shape[1] != 2:
        raise ValueError(f"{name} must be pairs (begin, end); its shape is {result.shape}")
    if int(result.min()) < 0 or int(result.max()) > np.iinfo(np.uint32).max:
        raise ValueError(f"{name} has a place outside of the ids: {int(result.min())} to {int(result.max())}")
    return np.require(result, np.int64, ["C", "A"])


def as_part(array: Any, name: str) -> npt.NDArray[Any]:
    """An array that a part can be: 1-D, of PART_TYPES, native. ValueError, which calls the array `name`, otherwise."""
    result = np.asarray(array)
    if result.ndim != 1:
        raise ValueError(f"{name} must be 1-D; its shape is {result.shape}")
    if result.dtype.name not in PART_TYPES:
        raise ValueError(f"{name} has the dtype {result.dtype}; a part is of {', '.join(PART_TYPES)}")
    return np.require(result, result.dtype.newbyteorder("="), ["C", "A"])


def as_int32(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.int32]:
    """The values of a 1-D integer array as an aligned, contiguous array of native int32: itself if it is one.

    ValueError, which calls the array `name`, for another shape or dtype and for a value that does not fit.
    """
    if array.ndim != 1:
        raise ValueError(f"{name} must be 1-D; its shape is {array.shape}")
    if array.size == 0:
        return np.zeros(0, np.int32)  # an empty list has no integer dtype
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers; its dtype is {array.dtype}")
    lowest, highest = int(array.min()), int(array.max())
    if lowest < _INT32.min or highest > _INT32.max:
        value = lowest if lowest < _INT32.min else highest
        raise ValueError(f"{name} holds {value}, which does not fit into int32")
    return np.require(array, np.int32, ["C", "A"])


def tokens_with_parts(
    input_ids: Any, attention_mask: Any, spans: Any, scalars: Any, arrays: Any
) -> CachedTokens:
    """What a pickle of CachedTokens with parts calls."""
    return CachedTokens(input_ids, attention_mask, spans=spans, scalars=scalars, arrays=arrays)
