"""What ffmpeg is told, and what it answers: the only module that knows its arguments.

Every run has its working directory in the folder of its files, so that each file is named by a plain name and no
character of a user's path has a meaning to ffmpeg.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg
import msgspec

from kernel.plugin import Refused
from plugins.video.feed import Child, Failed, run
from plugins.video.mp4 import read_video

if TYPE_CHECKING:
    from collections.abc import Sequence

THUMBNAIL_WIDTH = 320
STRIP_WIDTH = 160
SIDE_HEIGHT = 480
KEYFRAME_SECONDS = 2
"""A player that seeks decodes so much at most. At 1 s, textured pictures take twice the bytes."""
PROBE_SECONDS = 30.0
DISK_BYTES_PER_SECOND = 10_000_000
"""As slow as a disk may be before reading or joining a file counts as hung."""


class Encoding(msgspec.Struct, frozen=True, kw_only=True):
    """How all chunks of one recording are encoded; if they differed, the joined stream would not decode."""

    codec: str
    """An encoder of ffmpeg."""
    crf: int
    """Negative: the encoder's own choice."""
    preset: str
    """Empty: the encoder's own choice."""

    def under_backlog(self) -> Encoding:
        """A third faster for four times the bytes; the same where the encoder has no `ultrafast`."""
        if self.codec not in ("libx264", "libx265"):
            return self
        return msgspec.structs.replace(self, preset="ultrafast", crf=max(self.crf - 1, -1))


class Frames(msgspec.Struct, frozen=True, kw_only=True):
    """What arrives on stdin: RGB24, row by row."""

    width: int
    height: int
    fps: float


def find() -> Path:
    """The ffmpeg to use. Raises `Refused` where there is none."""
    for _ in range(3):  # it is tried out, and what runs for that may be killed like any other process
        with suppress(RuntimeError):
            name = imageio_ffmpeg.get_ffmpeg_exe()
            break
    else:
        raise Refused(f"there is no ffmpeg on this machine: {_MEND}")
    executable = shutil.which(name)
    if executable is None:
        raise Refused(f"{name} is no program that can be run, but is to be the ffmpeg: {_MEND}")
    return Path(executable).absolute()


def probe(executable: Path, encoding: Encoding, *, thumbnail: bool) -> None:
    """Encode three frames for real. Raises `Refused` where they do not come back as three."""
    frames = Frames(width=65, height=63, fps=24000 / 1001)
    picture = bytes(frames.width * frames.height * 3)
    try:
        with tempfile.TemporaryDirectory(prefix="stepreel-probe-") as name:
            folder = Path(name)
            jpeg = (1, "probe.jpg") if thumbnail else None
            arguments = encode(executable, frames, encoding, "probe.mp4", faststart=True, thumbnail=jpeg)
            run(Child(), arguments, folder, [picture] * 3, stall_seconds=PROBE_SECONDS)
            found = read_video(folder / "probe.mp4")
    except Failed as failure:
        raise Refused(_refusal(executable, encoding, str(failure))) from None
    except OSError as error:
        raise Refused(f"{executable} cannot be run ({error.strerror}): {_MEND}") from None
    if found.frames != 3:
        raise Refused(_refusal(executable, encoding, f"3 frames went in and {found.frames} came out"))


_MEND = (
    "reinstall the bundled one with `pip install --force-reinstall imageio-ffmpeg`, or name another ffmpeg in the "
    "environment variable IMAGEIO_FFMPEG_EXE"
)


def _refusal(executable: Path, encoding: Encoding, why: str) -> str:
    first_line = why.partition("\n")[0]
    settings = f'codec = "{encoding.codec}", crf = {encoding.crf}, preset = "{encoding.preset}"'
    return (
        f"{settings}: ffmpeg cannot encode so: {first_line}\n"
        f'  Choose a codec that `"{executable}" -encoders` lists, such as "libx264"; set preset = "" or crf = -1 where '
        f"it takes none; or, where ffmpeg itself is broken, {_MEND}."
    )


# Arguments -------------------------------------------------------------------------------------------------------


def encode(
    executable: Path,
    frames: Frames,
    encoding: Encoding,
    output: str,
    *,
    faststart: bool = False,
    thumbnail: tuple[int, str] | None = None,
    threads: int = 1,
) -> list[str]:
    """Encode raw frames from stdin to an MP4; `thumbnail` names a frame by its index, and the JPEG to make of it."""
    fps = exact(frames.fps)
    arguments = [
        *(str(executable), *_QUIETLY, "-filter_threads", "1"),
        *("-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{frames.width}x{frames.height}"),
        *("-framerate", f"{fps}", "-i", "pipe:0"),
        *("-map", "0:v", "-vf", _picture(frames), "-fps_mode", "passthrough"),
        *("-c:v", encoding.codec, "-threads", str(threads), "-g", str(max(1, round(KEYFRAME_SECONDS * fps)))),
    ]
    if encoding.codec == "libx264":
        arguments += ["-profile:v", "high"]
    if encoding.preset:
        arguments += ["-preset", encoding.preset]
    if encoding.crf >= 0:
        arguments += ["-crf", str(encoding.crf)]
    arguments += _mp4(fps, output, faststart=faststart)
    if thumbnail is not None:
        index, file = thumbnail
        arguments += ["-map", "0:v", *_jpeg(f"select=eq(n\\,{index}),", file)]
    return arguments


def join(executable: Path, listing: str, fps: float, output: str) -> list[str]:
    """Join the segments that the file `listing` names (see `listing_of`) by stream copy."""
    rate = exact(fps)
    ticks = _timescale(rate) // rate.numerator * rate.denominator
    # The concat demuxer counts in microseconds, so that each segment begins up to a tick off: back to whole frames.
    on_time = f"setts=pts=round(PTS/{ticks})*{ticks}:dts=round(DTS/{ticks})*{ticks}:duration={ticks}"
    return [
        *(str(executable), *_QUIETLY, "-f", "concat", "-i", listing),
        *("-map", "0:v", "-c", "copy", "-bsf:v", on_time),
        *_mp4(rate, output, faststart=True),
    ]


def listing_of(segments: list[str]) -> str:
    """What a file must say for `join` to join these segments."""
    return "ffconcat version 1.0\n" + "".join(f"file {segment}\n" for segment in segments)


def thumbnail_of(executable: Path, video: str, at_seconds: float, output: str) -> list[str]:
    """Make a JPEG of the frame that a video shows at this time."""
    seek = ["-ss", f"{at_seconds:.6f}"]
    return [str(executable), *_QUIETLY, "-threads", "1", *seek, "-i", video, "-map", "0:v", *_jpeg("", output)]


def strip_of(executable: Path, video: str, output: str, *, frames: int, fps: float, tiles: int) -> list[str]:
    """Make a JPEG of so many pictures of a video, evenly over its time, side by side."""
    rate = exact(tiles * fps / max(1, frames))
    seek = frames > 4 * tiles * fps * KEYFRAME_SECONDS  # several keyframes to each picture: no other need be decoded
    tile = f"scale={STRIP_WIDTH}:-2:flags=area:out_range=pc,format=yuvj420p"
    whole = f"fps={rate},{tile},tpad=stop={tiles}:stop_mode=clone,tile={tiles}x1"
    return [
        *(str(executable), *_QUIETLY, "-threads", "1", *(("-skip_frame", "nokey") if seek else ())),
        *("-protocol_whitelist", "file", "-f", "mp4", "-i", video, "-map", "0:v", "-vf", whole),
        *("-frames:v", "1", "-c:v", "mjpeg", "-threads", "1", "-q:v", "5", "-f", "mjpeg", output),
    ]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A video that is to be seen beside others."""

    file: str
    fps: float
    """How fast it is shown, whatever it says itself."""
    wait_seconds: float = 0.0
    """Its first picture stands for so long before it begins."""


def side_by_side(executable: Path, sides: Sequence[Side], fps: float, seconds: float, output: str) -> list[str]:
    """Make one MP4 of several, each as high as the others and in a place of its own; the last picture of each stays."""
    inputs = [part for side in sides for part in ("-protocol_whitelist", "file", "-f", "mp4", "-i", side.file)]
    places = []
    for place, side in enumerate(sides):
        wait = f"tpad=start_duration={side.wait_seconds:.6f}:start_mode=clone:stop=-1:stop_mode=clone"
        even = f"scale=-2:{SIDE_HEIGHT}:flags=area"
        places.append(
            f"[{place}:v]setpts=N/({exact(side.fps)}*TB),fps={exact(fps)},{wait},{even},setsar=1[side{place}]"
        )
    joined = "".join(f"[side{place}]" for place in range(len(sides)))
    graph = f"{';'.join(places)};{joined}hstack=inputs={len(sides)},format=yuv420p[whole]"
    return [
        *(str(executable), *_QUIETLY, "-filter_threads", "1", *inputs),
        *("-filter_complex", graph, "-map", "[whole]", "-t", f"{seconds:.6f}"),
        *("-c:v", "libx264", "-profile:v", "high", "-preset", "veryfast", "-crf", "21", "-threads", "1"),
        *_mp4(exact(fps), output, faststart=True),
    ]


def exact(fps: float) -> Fraction:
    """The rate as a fraction: 23.976 is 2997/125, and 23.976023976… is 24000/1001."""
    return max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))


def count_decoded(child: Child, executable: Path, folder: Path, file: str, *, stall_seconds: float) -> int:
    """Decode every frame of a video; how many there are. Raises `Failed` where one cannot be, or there is no video."""
    arguments = [str(executable), "-hide_banner", "-nostdin", "-xerror", "-i", file, "-map", "0:v"]
    arguments += ["-fps_mode", "passthrough", "-f", "null", "-"]
    words = run(child, arguments, folder, None, stall_seconds=stall_seconds + handling_seconds(folder / file))
    counts = _COUNT.findall(words)
    if not counts:
        raise Failed(f"{file} holds no video that ffmpeg can read: {words[-400:].strip()}")
    return int(counts[-1])


def handling_seconds(*files: Path) -> float:
    """How long files take to be read or written through where the disk is slow, and nothing else is seen to move."""
    return sum(file.stat().st_size for file in files) / DISK_BYTES_PER_SECOND


_COUNT = re.compile(r"frame= *(\d+)")
_QUIETLY = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "error", "-y")


def _picture(frames: Frames) -> str:
    """The filters from RGB to YUV: chroma averaged over the pixels it stands for, BT.601 and tagged so."""
    right, bottom = frames.width % 2, frames.height % 2
    # The pixel that is added repeats its neighbour: a black one would darken the chroma that they share.
    pad = (
        f"pad={frames.width + right}:{frames.height + bottom},fillborders=right={right}:bottom={bottom}:mode=smear,"
        if right or bottom
        else ""
    )
    return (
        f"{pad}scale=flags=area:out_color_matrix=bt601:out_range=tv,format=yuv420p,"
        "setparams=range=tv:colorspace=smpte170m:color_primaries=smpte170m:color_trc=smpte170m"
    )


def _mp4(fps: Fraction, output: str, *, faststart: bool) -> list[str]:
    scale = str(_timescale(fps))
    moved = ["-movflags", "+faststart"] if faststart else []
    return ["-video_track_timescale", scale, "-movie_timescale", scale, *moved, "-f", "mp4", output]


def _timescale(fps: Fraction) -> int:
    """Ticks a second, so that a frame takes a whole number of them; at least 10,000, which all players expect."""
    return fps.numerator * -(-10_000 // fps.numerator)


def _jpeg(before: str, output: str) -> list[str]:
    small = f"{before}scale=w=min({THUMBNAIL_WIDTH}\\,iw):h=-1:flags=area:out_range=pc,format=yuvj420p"
    return ["-vf", small, "-frames:v", "1", "-c:v", "mjpeg", "-threads", "1", "-q:v", "4", "-f", "mjpeg", output]
