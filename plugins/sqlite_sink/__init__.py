"""The SQLite sink: the log as tables."""

from plugins.sqlite_sink.sink import SqliteSink, SqliteSinkOptions

__all__ = ["SqliteSink", "SqliteSinkOptions"]
