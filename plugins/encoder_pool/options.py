"""Options of the encoder pool."""

from __future__ import annotations

from kernel.plugin import Options


class EncoderPoolOptions(Options):
    """How videos are encoded."""

    jobs: int = 0
    """Encoders at a time; 0: as many as there are cores to spare, by affinity and the container's quota."""
    codec: str = "libx264"
    """Any encoder of the bundled ffmpeg that takes yuv420p and fits into MP4; it is tried out at the start."""
    crf: int = 20
    """Quality: lower is better and larger. -1 leaves it to the encoder."""
    preset: str = "veryfast"
    """The encoder's preset, speed against size. Empty leaves it to the encoder."""
    stall_seconds: float = 15.0
    """An ffmpeg that made no progress for so long is killed, and its work tried again."""
    attempts: int = 3
    """After so many failed attempts at one piece of work the recording is given up (`VideoFailed`)."""
    backlog_frames: int = 20_000
    """While more frames than this wait, recordings that begin to be encoded use `ultrafast` and one CRF less."""
    failed_bytes: int = 1 << 30
    """Bound of `home/failed`, where the frames of given-up recordings are kept; the oldest make room. 0 keeps none."""
    thumbnails: bool = True
    """Make a JPEG of each video's middle frame, up to 320 pixels wide."""

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise ValueError(f"jobs is {self.jobs}; choose 1 or more, or 0 for as many as there are cores to spare")
        if self.crf < -1:
            raise ValueError(f"crf is {self.crf}; choose 0 or more, or -1 to leave it to the encoder")
        if not self.codec:
            raise ValueError('codec is empty; name an encoder of ffmpeg, such as "libx264"')
        if self.stall_seconds <= 0:
            raise ValueError(f"stall_seconds is {self.stall_seconds:g}; choose more than 0")
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; choose 1 or more")
        for key in ("backlog_frames", "failed_bytes"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} is {getattr(self, key)}; choose 0 or more")
