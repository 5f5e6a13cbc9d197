"""Headwater: a client of stream stores, and a store in this process.

    with headwater.connect("tcp://127.0.0.1:9090") as client:
        client.create_scope("shop")
        client.create_stream("shop/orders")
        with client.event_writer("shop/orders") as writer:
            writer.write(b"one apple", "customer 7")

`headwater.aio` has the same for asyncio.
"""

import atexit as _atexit

from . import _native
from ._blocking import *  # noqa: F401,F403
from ._blocking import connect, memory, open  # noqa: F401
from ._errors import *  # noqa: F401,F403
from ._native import Checkpoint, Event, EventPointer, Position, Revision, StreamCut, Version
from ._values import (
    ABSENT,
    ByEventRate,
    ByThroughput,
    CheckpointReached,
    Entry,
    Fixed,
    KeyValueTableConfig,
    ReaderGroupConfig,
    RetainSize,
    RetainTime,
    SegmentInfo,
    SegmentRange,
    Slice,
    StreamConfig,
    TableChanges,
    TableInfo,
    Written,
)

# The interpreter ends by force what asks for it too late.
_atexit.register(_native._stop)
