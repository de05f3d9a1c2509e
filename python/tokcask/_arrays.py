"""Token arrays of whatever integer dtype as the int32 that is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_INT32 = np.iinfo(np.int32)


def of_integers(array: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """The array, or one of what was given. ValueError, which calls it `name`, for one of anything but integers."""
    result = np.asarray(array)
    if (
        result.ndim > 0 and result.size > 0 and result.dtype.kind not in "iu"
    ):  # an empty list has no integer dtype
        raise ValueError(f"{name} must hold integers; its dtype is {result.dtype}")
    return result


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
