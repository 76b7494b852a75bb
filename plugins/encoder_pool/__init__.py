"""The encoder pool: chunks of captured frames become MP4 files."""

from plugins.encoder_pool.options import EncoderPoolOptions
from plugins.encoder_pool.pool import EncoderPool

__all__ = ["EncoderPool", "EncoderPoolOptions"]
