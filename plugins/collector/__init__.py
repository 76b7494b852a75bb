"""The collector: from the producers' spool to the bus, each event exactly once."""

from plugins.collector.collector import Collector as Collector
from plugins.collector.collector import CollectorOptions as CollectorOptions
