"""Headwater: a client of stream stores, and a store in this process.

    with headwater.connect("tcp://127.0.0.1:9090") as client:
        client.create_scope("shop")
        client.create_stream("shop/orders")
        with client.event_writer("shop/orders") as writer:
            writer.write(b"one apple", "customer 7")

`headwater.aio` has the same for asyncio.
"""

import atexit as _atexit
import os as _os

from . import _native
from ._blocking import (
    ByteReader,
    ByteWriter,
    CheckpointUnderWay,
    Client,
    Entries,
    EventReader,
    EventWriter,
    KeyValueTable,
    Pending,
    ReaderGroup,
    RevisionReader,
    RevisionedStream,
    SliceReader,
    StateSynchronizer,
    StreamReader,
    Table,
    Transaction,
    TransactionWriter,
    connect,
    memory,
    open,
)
from ._errors import (
    AlreadyExistsError,
    ClosedError,
    ConflictError,
    DeniedError,
    Error,
    ExhaustedError,
    InvalidError,
    NotFoundError,
    NotStartedError,
    ProtocolError,
    SealedError,
    TruncatedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from ._native import (
    Checkpoint,
    Event,
    EventBatch,
    EventPointer,
    Position,
    Revision,
    StreamCut,
    Version,
)
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

__all__ = [
    "ABSENT",
    "AlreadyExistsError",
    "ByEventRate",
    "ByThroughput",
    "ByteReader",
    "ByteWriter",
    "Checkpoint",
    "CheckpointReached",
    "CheckpointUnderWay",
    "Client",
    "ClosedError",
    "ConflictError",
    "DeniedError",
    "Entries",
    "Entry",
    "Error",
    "Event",
    "EventBatch",
    "EventPointer",
    "EventReader",
    "EventWriter",
    "ExhaustedError",
    "Fixed",
    "InvalidError",
    "KeyValueTable",
    "KeyValueTableConfig",
    "NotFoundError",
    "NotStartedError",
    "Pending",
    "Position",
    "ProtocolError",
    "ReaderGroup",
    "ReaderGroupConfig",
    "RetainSize",
    "RetainTime",
    "Revision",
    "RevisionReader",
    "RevisionedStream",
    "SealedError",
    "SegmentInfo",
    "SegmentRange",
    "Slice",
    "SliceReader",
    "StateSynchronizer",
    "StreamConfig",
    "StreamCut",
    "StreamReader",
    "Table",
    "TableChanges",
    "TableInfo",
    "Transaction",
    "TransactionWriter",
    "TruncatedError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "Version",
    "Written",
    "connect",
    "memory",
    "open",
]

# The interpreter ends by force what asks for it too late.
_atexit.register(_native._stop)
# A child has none of the threads that its parent's objects need.
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(after_in_child=_native._after_fork)
