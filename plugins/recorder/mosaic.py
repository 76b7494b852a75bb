"""The mosaic: the pictures of a vector environment's sub-environments, side by side in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plugins.recorder.pictures import as_uint8, brightest, is_picture, on_host

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Picture = np.ndarray[Any, Any]


class Layout(NamedTuple):
    """How many pictures are above and beside each other."""

    rows: int
    columns: int


def layout(pictures: int, height: int, width: int, aspect_ratio: float) -> Layout:
    """The layout without gaps, and with no more rows than columns, that comes nearest to the aspect ratio."""
    without_gaps = [Layout(rows, pictures // rows) for rows in range(1, int(pictures**0.5) + 1) if pictures % rows == 0]
    return min(without_gaps, key=lambda grid: abs(grid.columns * width / (grid.rows * height) - aspect_ratio))


def apart(rendered: Any, size: int) -> list[Any] | None:
    """The picture of each of `size` environments; None where there is one picture of them all, or none."""
    if isinstance(rendered, (list, tuple)):
        # Where pictures are collected, each environment's newest.
        newest = [each[-1] if isinstance(each, list) and each else each for each in rendered[:size]]
        return newest + [None] * (size - len(newest))
    if not is_picture(rendered):
        return None
    shape = rendered.shape
    grey = len(shape) == 3 and shape[-1] not in (1, 3, 4)
    return list(on_host(rendered)) if shape[:1] == (size,) and (grey or len(shape) == 4) else None


class Mosaic:
    """Puts pictures together."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """`warn` is called with words about pictures that do not fit, whenever there are any."""
        self._warn = warn
        self._cell = (0, 0, 0)
        """Height, width and channels that held everything so far, where pictures do not fit each other."""
        self._buffer: Picture = np.zeros((0, 0, 0), np.uint8)

    def size_of_one(self, pictures: Sequence[Any]) -> tuple[int, int] | None:
        """Height and width of one of the pictures; None where there is none."""
        shapes = [picture.shape for picture in pictures if _is_frame(picture)]
        return (max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)) if shapes else None

    def put_together(self, pictures: Sequence[Any], grid: Layout) -> Picture:
        """One picture of all; it changes with the next call. A picture that is missing is black."""
        first = pictures[0]
        if not (
            type(first) is np.ndarray
            and first.ndim in (2, 3)
            and all(
                type(each) is np.ndarray and each.shape == first.shape and each.dtype == first.dtype
                for each in pictures
            )
        ):
            pictures = self._fitted(pictures)
            first = pictures[0]
        height, width = first.shape[:2]
        shape = (grid.rows * height, grid.columns * width, *first.shape[2:])
        whole = self._buffer
        if whole.shape != shape or whole.dtype != first.dtype:
            whole = self._buffer = np.zeros(shape, first.dtype)
        for place, picture in enumerate(pictures):
            row, column = divmod(place, grid.columns)
            whole[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
        return whole

    def _fitted(self, pictures: Sequence[Any]) -> list[Picture]:
        """Pictures of one size and kind, each in the upper left corner of its cell. There is one at least."""
        frames = [on_host(each) if _is_frame(each) else None for each in pictures]
        there = [frame for frame in frames if frame is not None]
        if len({frame.dtype for frame in there}) > 1:
            frames = [frame if frame is None else as_uint8(frame, brightest(frame)) for frame in frames]
        frames = [frame[:, :, None] if frame is not None and frame.ndim == 2 else frame for frame in frames]
        there = [frame for frame in frames if frame is not None]
        if len({frame.shape for frame in there}) > 1 or len(there) < len(frames):
            self._warn(_what_is_odd(frames))
        colours = {frame.shape[2] for frame in there}
        needed = np.max([(*frame.shape[:2], frame.shape[2] if len(colours) == 1 else 3) for frame in there], axis=0)
        height, width, channels = self._cell = tuple(np.maximum(needed, self._cell).tolist())
        cells = []
        for frame in frames:
            cell = np.zeros((height, width, channels), there[0].dtype)
            if frame is not None:
                colour = frame if frame.shape[2] in (1, channels) else frame[:, :, :channels]
                cell[: frame.shape[0], : frame.shape[1]] = colour
            cells.append(cell)
        return cells


def _is_frame(picture: Any) -> bool:
    if not is_picture(picture):
        return False
    shape = picture.shape
    return (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))) and 0 not in shape


def _what_is_odd(frames: Sequence[Picture | None]) -> str:
    missing = [place for place, frame in enumerate(frames) if frame is None]
    sizes = sorted({f"{frame.shape[1]}×{frame.shape[0]}" for frame in frames if frame is not None})
    told = []
    if len(sizes) > 1:
        told.append(f"pictures of different sizes ({', '.join(sizes)}); smaller ones are in a black field")
    if missing:
        told.append(f"no picture for {', '.join(map(str, missing))}, which are black")
    return f"the sub-environments gave {', and '.join(told) or 'pictures of different kinds'}"
