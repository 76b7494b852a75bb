"""Pictures: what environments render, as arrays of uint8 that can be frames."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_picture(rendered: Any) -> bool:
    """Whether it is an array, of numpy or of a library whose arrays can become numpy's."""
    return isinstance(rendered, np.ndarray) or hasattr(rendered, "__array__") or hasattr(rendered, "__dlpack__")


def on_host(rendered: Any) -> Any:
    """The array in the process's memory, as numpy has it; a tensor of another device is copied."""
    if isinstance(rendered, np.ndarray):
        return rendered
    detach = getattr(rendered, "detach", None)
    if detach is not None:  # PyTorch
        return np.asarray(detach().cpu().numpy())
    get = getattr(rendered, "get", None)
    if get is not None and not hasattr(rendered, "__array_interface__"):  # CuPy
        return np.asarray(get())
    return np.asarray(rendered)


def brightest(picture: np.ndarray[Any, Any]) -> float:
    """What stands for white in pictures like this one: 1 for booleans and for floats that go no further, else 255."""
    if picture.dtype.kind == "b":
        return 1.0
    if picture.dtype.kind == "f" and picture.size and float(np.nanmax(picture)) <= 1.0:
        return 1.0
    return 255.0


def as_uint8(picture: np.ndarray[Any, Any], white: float) -> np.ndarray[Any, Any]:
    """The picture in 0 to 255, where `white` becomes 255; what lies beyond is cut, and NaN is black."""
    if picture.dtype == np.uint8:
        return picture
    scaled = np.nan_to_num(picture.astype(np.float32), nan=0.0, posinf=white, neginf=0.0) * (255.0 / white)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)
