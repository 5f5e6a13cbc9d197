"""What the blocking and the asyncio package have in common: every operation is written once.

A class here says *what* is asked of the native part; `_run` says how its answer is awaited. The subclasses in
`headwater._blocking` and `headwater.aio` add what differs: context managers, iterators, and writing when there is no room.
"""

from typing import Any, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from . import _native
from ._values import (
    CheckpointReached,
    Entry,
    EntryKey,
    Fixed,
    IndexRecord,
    KeyValueTableConfig,
    Member,
    ReaderGroupConfig,
    Seconds,
    SegmentInfo,
    SegmentRange,
    Slice,
    StreamConfig,
    Successor,
    TableChanges,
    TableInfo,
    TimeWindow,
    certificates,
    seconds,
)


def connect_options(trust, basic, bearer, oidc, connect_timeout, request_timeout, retry_for):
    return {
        "trust": certificates(trust),
        "basic": basic,
        "bearer": bearer,
        "oidc": None if oidc is None else oidc._native(),
        "connect_timeout": seconds(connect_timeout),
        "request_timeout": seconds(request_timeout),
        "retry_for": seconds(retry_for),
    }


def _writer_options(batch_bytes, window_bytes, linger):
    return {"batch_bytes": batch_bytes, "window_bytes": window_bytes, "linger": seconds(linger)}


def _config(streams: Union[str, Iterable[str], Mapping[str, Any], ReaderGroupConfig]) -> ReaderGroupConfig:
    if isinstance(streams, ReaderGroupConfig):
        return streams
    if isinstance(streams, str):
        return ReaderGroupConfig({streams: None})
    if isinstance(streams, Mapping):
        return ReaderGroupConfig(dict(streams))
    return ReaderGroupConfig({stream: None for stream in streams})


class _Base:
    """Wraps a native object."""

    # Of the package: its classes, and how it waits.
    _classes: Any
    _run: Any

    def __init__(self, native: Any) -> None:
        self._native = native

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__}>"


class ClientBase(_Base):
    """A client of one cluster, or of a store in this process. Streams and tables are named ``SCOPE/NAME``."""

    def create_scope(self, scope: str):
        """Makes a scope. False if it was there."""
        return self._run(self._native.create_scope, scope)

    def delete_scope(self, scope: str, *, recursive: bool = False):
        """Deletes a scope, with everything in it if `recursive`. False if it was not there."""
        return self._run(self._native.delete_scope, scope, recursive)

    def scope_exists(self, scope: str):
        """Whether a scope is there."""
        return self._run(self._native.scope_exists, scope)

    def scopes(self):
        """Names of all scopes."""
        return self._run(self._native.scopes)

    def create_stream(self, stream: str, config: Union[StreamConfig, int] = StreamConfig()):
        """Makes a stream; a number stands for so many segments. False if it was there; it is then as it was."""
        if isinstance(config, int):
            config = StreamConfig(Fixed(config))
        return self._run(self._native.create_stream, stream, config._native())

    def update_stream(self, stream: str, config: StreamConfig):
        """Replaces a stream's configuration."""
        return self._run(self._native.update_stream, stream, config._native())

    def stream_config(self, stream: str):
        """A stream's configuration."""
        return self._run(self._native.stream_config, stream, then=StreamConfig._of)

    def stream_exists(self, stream: str):
        """Whether a stream is there, sealed or not."""
        return self._run(self._native.stream_exists, stream)

    def streams(self, scope: str, *, tag: Optional[str] = None):
        """Names of all streams of a scope, or of those with a tag."""
        return self._run(self._native.streams, scope, tag)

    def seal_stream(self, stream: str):
        """Makes a stream read-only for ever."""
        return self._run(self._native.seal_stream, stream)

    def delete_stream(self, stream: str, *, seal: bool = False):
        """Deletes a sealed stream, or seals it first. False if it was not there."""
        return self._run(self._native.delete_stream, stream, seal)

    def truncate_stream(self, cut: _native.StreamCut):
        """Drops everything before a cut."""
        return self._run(self._native.truncate_stream, cut)

    def head_cut(self, stream: str):
        """The cut before everything that is in the stream now."""
        return self._run(self._native.head_cut, stream)

    def tail_cut(self, stream: str):
        """The cut behind everything that is in the stream now."""
        return self._run(self._native.tail_cut, stream)

    def segments(self, stream: str, *, epoch: Optional[int] = None):
        """Segments that take events now, or those of an epoch."""
        return self._run(self._native.segments, stream, epoch, then=lambda all: [SegmentRange(*one) for one in all])

    def segment_info(self, stream: str, segment: int):
        """What a segment holds now."""
        return self._run(self._native.segment_info, stream, segment, then=lambda info: SegmentInfo(*info))

    def successors(self, stream: str, segment: int):
        """What follows on a sealed segment; nothing if its stream is sealed."""

        def made(all):
            return [Successor(SegmentRange(*one[:3]), one[3]) for one in all]

        return self._run(self._native.successors, stream, segment, then=made)

    def subscribers(self, stream: str):
        """Reader groups that hold back the retention of a stream, as SCOPE/GROUP."""
        return self._run(self._native.subscribers, stream)

    def remove_writer(self, stream: str, writer: str):
        """Lets time windows go on without a writer that notes no times any more, as a `transaction_writer` by its name, or a
        Java client by what it was configured with. False if none of the name has noted a time."""
        return self._run(self._native.remove_writer, stream, writer)

    def scale_stream(self, stream: str, sealed: Sequence[int], ranges: Sequence[Tuple[float, float]]):
        """Replaces current segments by others for the same keys, and waits until it is done."""
        return self._run(self._native.scale_stream, stream, list(sealed), list(ranges))

    def event_writer(
        self,
        stream: str,
        *,
        batch_bytes: Optional[int] = None,
        window_bytes: Optional[int] = None,
        linger: Optional[Seconds] = None,
    ):
        """A writer of events to a stream."""
        options = _writer_options(batch_bytes, window_bytes, linger)
        return self._run(self._native.event_writer, stream, options, then=self._classes.EventWriter)

    def numbered_writer(
        self,
        stream: str,
        name: str,
        *,
        batch_bytes: Optional[int] = None,
        window_bytes: Optional[int] = None,
        linger: Optional[Seconds] = None,
    ):
        """A writer of numbered events, under a name that outlives the process and is nobody else's within the stream."""
        arguments = (self._native, stream, name, _writer_options(batch_bytes, window_bytes, linger))
        return self._run(_native._numbered_writer, *arguments, then=self._classes.NumberedWriter)

    def transaction_writer(
        self,
        stream: str,
        *,
        lease: Optional[Seconds] = None,
        writer: Optional[str] = None,
        batch_bytes: Optional[int] = None,
        window_bytes: Optional[int] = None,
        linger: Optional[Seconds] = None,
    ):
        """A writer of transactions to a stream."""
        options = _writer_options(batch_bytes, window_bytes, linger)
        native = self._native.transaction_writer(stream, options, seconds(lease), writer)
        return self._classes.TransactionWriter(native)

    def transaction_state(self, stream: str, id: str):
        """What has become of a transaction: open, committing, committed, aborting, aborted or unknown."""
        return self._run(self._native.transaction_state, stream, id)

    def completed_transactions(self, stream: str):
        """Ids of the transactions completed last, newest first, and whether each was committed."""
        return self._run(self._native.completed_transactions, stream)

    def byte_writer(self, stream: str, *, batch_bytes: Optional[int] = None, window_bytes: Optional[int] = None):
        """A writer of bytes to a stream of one segment."""
        arguments = (self._native, stream, batch_bytes, window_bytes)
        return self._run(_native._byte_writer, *arguments, then=self._classes.ByteWriter)

    def byte_reader(self, stream: str, offset: int = 0):
        """Reads the bytes of a stream of one segment, from an offset on."""
        return self._run(_native._byte_reader, self._native, stream, offset, then=self._classes.ByteReader)

    def stream_reader(
        self,
        stream: str,
        start: Union[str, _native.StreamCut] = "head",
        *,
        until: Union[_native.StreamCut, str, None] = None,
    ):
        """Reads a whole stream alone, from "head", "tail" or a cut; for ever, to a cut, or to what is its "tail" now."""
        to_tail = until == "tail"
        cut = None if to_tail else until
        return self._run(self._native.stream_reader, stream, start, cut, to_tail, then=self._classes.StreamReader)

    def fetch_event(self, pointer: _native.EventPointer):
        """The bytes of the event that a pointer leads to."""
        return self._run(self._native.fetch_event, pointer)

    def next_cut(self, cut: _native.StreamCut, bytes: int):
        """A cut about so many bytes behind another: at least an event, where there is one; the same at the end. What lies between
        the two is a part of the work for whoever reads a stream in parts."""
        return self._run(self._native.next_cut, cut, bytes)

    def slices(self, stream: str, *, start: Optional[_native.StreamCut] = None, end: Optional[_native.StreamCut] = None):
        """What a stream holds between two cuts, or all that it holds now, as slices that can be read side by side, by any
        process."""

        def made(all):
            return [Slice(stream, *one) for one in all]

        return self._run(self._native.slices, stream, start, end, then=made)

    def read_slice(self, slice: Slice):
        """Reads the events of a slice in order."""
        return self._classes.SliceReader(self._native.read_slice(*slice))

    def create_reader_group(self, group: str, streams: Union[str, Iterable[str], Mapping[str, Any], ReaderGroupConfig]):
        """Makes a group, named SCOPE/GROUP. False if it was there with the same configuration."""
        arguments = (self._native, *_scoped(group), _config(streams)._native())
        return self._run(_native._create_reader_group, *arguments)

    def reader_group(self, group: str):
        """Opens a group, named SCOPE/GROUP."""
        return self._run(_native._reader_group, self._native, *_scoped(group), then=self._classes.ReaderGroup)

    def reader_groups(self, scope: str):
        """Names of a scope's groups, without the scope."""
        return self._run(self._native.reader_groups, scope)

    def delete_reader_group(self, group: str):
        """Deletes a group, named SCOPE/GROUP. False if it was not there."""
        return self._run(_native._delete_reader_group, self._native, *_scoped(group))

    def create_key_value_table(
        self,
        table: str,
        *,
        partitions: int = 1,
        primary_key_bytes: int,
        secondary_key_bytes: int = 0,
        rollover_bytes: int = 0,
    ):
        """Makes a table. False if it was there."""
        arguments = (table, partitions, primary_key_bytes, secondary_key_bytes, rollover_bytes)
        return self._run(_native._create_key_value_table, self._native, *arguments)

    def key_value_table(self, table: str):
        """Opens a table that was made with `create_key_value_table`, or by a Java client."""
        return self._run(_native._key_value_table, self._native, table, then=self._classes.KeyValueTable)

    def key_value_tables(self, scope: str):
        """Names of the tables of a scope."""
        return self._run(_native._key_value_tables, self._native, scope)

    def delete_key_value_table(self, table: str):
        """Deletes a table. False if it was not there."""
        return self._run(_native._delete_key_value_table, self._native, table)

    def table(self, table: str):
        """Opens a table of one segment with keys of any length, and makes it if it is not there."""
        return self._run(_native._table, self._native, table, then=self._classes.Table)

    def delete_table(self, table: str):
        """Deletes a table that `table` made. False if it was not there."""
        return self._run(_native._delete_table, self._native, table)

    def revisioned_stream(self, stream: str):
        """Opens a stream of one segment for changes by agreement."""
        return self._run(_native._revisioned_stream, self._native, stream, then=self._classes.RevisionedStream)

    def state_synchronizer(self, stream: str, codec: Any):
        """A copy of the state that is shared in a stream of one segment; `codec` says what its bytes mean."""
        arguments = (self._native, stream, codec)
        return self._run(_native._state_synchronizer, *arguments, then=self._classes.StateSynchronizer)

    def table_synchronizer(self, table: str):
        """A copy of the values that are shared in a table, which is made if it is not there. Empty until the first `fetch`."""
        return self._run(_native._table_synchronizer, self._native, table, then=self._classes.TableSynchronizer)

    def index_writer(self, stream: str, record_bytes: int = 4096):
        """A writer of labelled records to a stream of one segment. All have the size that the stream's first writer chose."""
        return self._run(_native._index_writer, self._native, stream, record_bytes, then=self._classes.IndexWriter)

    def index_reader(self, stream: str):
        """Finds and reads the labelled records of a stream."""
        return self._run(_native._index_reader, self._native, stream, then=self._classes.IndexReader)

    def join(self, stream: str, name: str, every: Seconds = 1.0):
        """Becomes a member, and beats from now on in a stream of one segment made for this; all members equally often."""
        return self._run(_native._join, self._native, stream, name, seconds(every), then=self._classes.Membership)


def _scoped(name: str) -> Tuple[str, str]:
    scope, _, rest = name.partition("/")
    return scope, rest


class EventWriterBase(_Base):
    """Writes events to a stream, each exactly once, in order per routing key."""

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream

    @property
    def bytes_under_way(self) -> int:
        """Bytes of events that are handed over and not yet stored."""
        return self._native.bytes_under_way

    def write_all(self, events: Iterable[bytes], routing_key: str):
        """Hands over several events of one key, which are stored together or not at all."""
        return self._run(self._native.write_all, list(events), routing_key)

    def try_write(self, event: bytes, routing_key: Optional[str] = None) -> bool:
        """Hands over an event if there is room for it at once. Nothing is awaited."""
        return self._native.try_write(event, routing_key)

    def flush(self):
        """Waits until everything that was handed over before is stored; raises the first failure of any event."""
        return self._run(self._native.flush)

    def note_time(self, time: int):
        """Notes that everything written so far is not younger than `time`, in any unit that all writers share."""
        return self._run(self._native.note_time, time)

    def note_end(self):
        """Notes no times any more: nobody waits for this writer's. False if it has noted none."""
        return self._run(self._native.note_end)


class NumberedWriterBase(_Base):
    """Writes events that the caller has numbered, each once, whatever process writes it.

    A process that starts again opens a writer of the same name and hands over the same events, with the same keys, under
    the same numbers, from behind `resume_after` or any place before that: what is stored already is not stored again. Nothing
    is left out, and numbers grow; one thread or task writes. After the first failure nothing is taken any more: open it anew.
    """

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream

    @property
    def resume_after(self) -> int:
        """Number up to which every event was stored when the writer was opened, whatever its key; 0 if none."""
        return self._native.resume_after

    @property
    def bytes_under_way(self) -> int:
        """Bytes of events that are handed over and not yet stored."""
        return self._native.bytes_under_way

    def is_stored(self, number: int, routing_key: str) -> bool:
        """Whether the event of this key and number is known to be stored."""
        return self._native.is_stored(number, routing_key)

    def write_all(self, number: int, events: Iterable[bytes], routing_key: str):
        """Hands over several events of one key and number, which are stored together or not at all."""
        return self._run(self._native.write_all, number, list(events), routing_key)

    def flush(self):
        """Waits until everything that was handed over before is stored; raises the first failure."""
        return self._run(self._native.flush)

    def note_time(self, time: int):
        """As `EventWriter.note_time`, also of what the processes before this one have written."""
        return self._run(self._native.note_time, time)

    def note_end(self):
        """As `EventWriter.note_end`, whichever process noted the times."""
        return self._run(self._native.note_end)


class TransactionWriterBase(_Base):
    """Begins transactions on a stream."""

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream

    def begin(self):
        """Begins a transaction."""
        return self._run(self._native.begin, then=self._classes.Transaction)

    def resume(self, id: str):
        """Takes up an open transaction that this or another process began."""
        return self._run(self._native.resume, id, then=self._classes.Transaction)

    def note_end(self):
        """As `EventWriter.note_end`, for the times of commits."""
        return self._run(self._native.note_end)


class TransactionBase(_Base):
    """An open transaction: its events become readable together, or not at all."""

    @property
    def id(self) -> str:
        """Its identity, by which any process can resume it."""
        return self._native.id

    @property
    def is_open(self) -> bool:
        """Whether it was neither committed nor aborted through this object."""
        return self._native.is_open

    def flush(self):
        """Waits until everything that was handed over before is stored."""
        return self._run(self._native.flush)

    def commit(self, *, time: Optional[int] = None, wait: bool = True):
        """Commits. With `wait`, its events can be read when it returns; otherwise soon after."""
        return self._run(self._native.commit, time, wait)

    def abort(self):
        """Drops all its events."""
        return self._run(self._native.abort)


class ByteWriterBase(_Base):
    """Appends bytes to a stream of one segment, each exactly once and in order."""

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream

    @property
    def bytes_under_way(self) -> int:
        """Bytes that are handed over and not yet stored."""
        return self._native.bytes_under_way

    def flush(self):
        """Waits until everything that was handed over before is stored."""
        return self._run(self._native.flush)

    def tail(self):
        """Offset behind the last byte that is stored, whoever wrote it."""
        return self._run(self._native.tail)

    def truncate(self, to: int):
        """Drops everything before an offset."""
        return self._run(self._native.truncate, to)

    def seal(self):
        """Lets nothing be written any more, by anybody."""
        return self._run(self._native.seal)


class ByteReaderBase(_Base):
    """Reads bytes from any offset on; at the tail it waits for more, and ends when the stream is sealed."""

    def tell(self):
        """Offset of the byte that is read next."""
        return self._run(self._native.tell)

    def seek(self, offset: int, whence: int = 0):
        """Goes on at an offset: from 0, from here (1), or from the end (2). Returns where that is."""
        return self._run(self._native.seek, offset, whence)

    def head(self):
        """Offset of the first byte that can be read."""
        return self._run(self._native.head)

    def tail(self):
        """Offset behind the last byte that is stored."""
        return self._run(self._native.tail)


class StreamReaderBase(_Base):
    """Reads all events of a stream, alone. For readers that share the work, use a reader group."""

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream

    def cut(self) -> _native.StreamCut:
        """The position behind the last event that was handed out."""
        return self._native.cut()

    def payloads(self):
        """From now on, this reader hands out the bytes of events, without where they are. Returns the reader."""
        self._native.plain()
        return self


class SliceReaderBase(_Base):
    """Reads the events of a slice in order."""


class EntriesBase(_Base):
    """Goes through the entries of a table."""

    def _made(self, entry: Any) -> Any:
        return Entry(*entry)


class KeysBase(_Base):
    """Goes through the keys of a table."""

    def _made(self, entry: Any) -> Any:
        key, secondary, _, version = entry
        return EntryKey(key, secondary, version)


class RevisionReaderBase(_Base):
    """Goes through the entries of a revisioned stream: pairs of the revision behind an entry, and its bytes."""


class ReaderGroupBase(_Base):
    """Readers that share the events of streams, so that each event is read by one."""

    @property
    def scope(self) -> str:
        """Scope of the group."""
        return self._native.scope

    @property
    def name(self) -> str:
        """Its name, without the scope."""
        return self._native.name

    def config(self):
        """How it reads: a `ReaderGroupConfig`."""
        return self._run(self._native.config, then=ReaderGroupConfig._of)

    def reader(
        self,
        id: str,
        *,
        at_once: bool = False,
        checkpoints: bool = False,
        delay: Seconds = 0.0,
        piece_bytes: int = 512 << 10,
        dead_after: Optional[Seconds] = None,
    ):
        """Adds a reader. `at_once`: an event counts as handled when the next is asked for, without waiting for a checkpoint.
        `checkpoints`: also hands out `CheckpointReached`. `dead_after`: it beats while it lives, and others that beat declare it
        offline when it has not for so long, at least a second; it does the same with them."""

        def made(native):
            return self._classes.EventReader(native, checkpoints)

        arguments = (id, at_once, seconds(delay), piece_bytes, seconds(dead_after))
        return self._run(self._native.reader, *arguments, then=made)

    def acknowledging_reader(
        self,
        id: str,
        *,
        redeliver_after: Seconds = 30.0,
        unacknowledged_max: int = 1000,
        unacknowledged_bytes_max: int = 32 << 20,
        delay: Seconds = 0.0,
        piece_bytes: int = 512 << 10,
        dead_after: Optional[Seconds] = None,
    ):
        """Adds a reader whose events are acknowledged one by one, and come again after `redeliver_after` until they are.
        While so many, or so many bytes, are not acknowledged, it hands out no others."""
        options = {
            "unacknowledged_max": unacknowledged_max,
            "unacknowledged_bytes_max": unacknowledged_bytes_max,
            "redeliver_after": seconds(redeliver_after),
            "delay": seconds(delay),
            "piece_bytes": piece_bytes,
            "dead_after": seconds(dead_after),
        }
        return self._run(self._native.acknowledging_reader, id, options, then=self._classes.AcknowledgingReader)

    def watch(self, dead_after: Seconds) -> _native.GroupWatch:
        """Declares readers offline that beat and have stopped for so long, until it is closed: for a process that supervises
        readers and is none. Nothing is awaited."""
        return self._native.watch(seconds(dead_after))

    def online_readers(self):
        """Ids of all readers that are in the group, dead ones included."""
        return self._run(self._native.online_readers)

    def reader_offline(self, id: str, position: Optional[_native.Position] = None):
        """Takes a reader out of the group that died; others read on from `position`. False if it is not in the group."""
        return self._run(self._native.reader_offline, id, position)

    def initiate_checkpoint(self, name: str):
        """Begins a checkpoint, which completes while readers ask for events."""
        return self._run(self._native.initiate_checkpoint, name, then=self._classes.CheckpointUnderWay)

    def generate_stream_cuts(self):
        """Where the readers are now: a cut for each stream."""
        return self._run(self._native.generate_stream_cuts)

    def cancel_checkpoints(self):
        """Gives up all checkpoints that are under way."""
        return self._run(self._native.cancel_checkpoints)

    def unread_bytes(self):
        """Bytes that are stored and not read, as far as readers have said what they read."""
        return self._run(self._native.unread_bytes)

    def reset(self, streams: Union[str, Iterable[str], Mapping[str, Any], ReaderGroupConfig]):
        """Begins anew with another configuration. All readers are put out of the group."""
        return self._run(self._native.reset, _config(streams)._native())

    def reset_to(self, checkpoint: _native.Checkpoint):
        """Begins anew where a checkpoint was taken."""
        return self._run(self._native.reset_to, checkpoint)

    def release_before(self, cuts: Iterable[_native.StreamCut]):
        """Lets go of what lies before these cuts, for a group with retention "cut"."""
        return self._run(self._native.release_before, list(cuts))


class CheckpointUnderWayBase(_Base):
    """A checkpoint that has begun."""

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    def wait(self):
        """Waits until all readers have reported, and returns the checkpoint."""
        return self._run(self._native.wait)


class EventReaderBase(_Base):
    """One reader of a group. It takes part only while it is asked for events: ask every few seconds."""

    def __init__(self, native: Any, checkpoints: bool) -> None:
        super().__init__(native)
        self._checkpoints = checkpoints

    @property
    def id(self) -> str:
        """Its id in the group."""
        return self._native.id

    def position(self) -> _native.Position:
        """Where it is: behind the last event that was handed out."""
        return self._native.position()

    def time_window(self, stream: str):
        """Between which times the group reads one of its streams, as far as writers noted times and readers said where they
        are, which each does every few seconds."""
        return self._run(self._native.time_window, stream, then=lambda window: TimeWindow(*window))

    def close(self):
        """Leaves the group: others go on behind the last event that was handed out."""
        return self._run(self._native.close)

    def _made(self, found: Any) -> Any:
        """An event, or a checkpoint if they are wanted; otherwise None."""
        if type(found) is not str:
            return found
        return CheckpointReached(found) if self._checkpoints else None


class AcknowledgingReaderBase(_Base):
    """A reader of a group whose events are handled in any order, by any threads or tasks, and each acknowledged when it is.

    An event is handed out at least once, and again until it is acknowledged. The group goes on before the first event that
    is not, whatever happens to the reader. It takes part only while it is asked for events: ask every few seconds.
    """

    @property
    def id(self) -> str:
        """Its id in the group."""
        return self._native.id

    @property
    def unacknowledged(self) -> int:
        """How many events are handed out and not acknowledged."""
        return self._native.unacknowledged

    def position(self) -> _native.Position:
        """Where it is: before the first event of each segment that is not acknowledged."""
        return self._native.position()

    def close(self):
        """Leaves the group: others go on with what is not acknowledged."""
        return self._run(self._native.close)


class _TableBase(_Base):
    @property
    def name(self) -> str:
        """Its name, as SCOPE/TABLE."""
        return self._native.name

    def get(self, key):
        """Value and version under a key; None if the table does not have it."""
        return self._run(self._native.get_all, [key], then=lambda found: found[0])

    def get_all(self, keys):
        """What each of several keys holds, in their order."""
        return self._run(self._native.get_all, list(keys))

    def remove(self, key, *, condition=None):
        """Removes a key. Nothing happens if the table does not have it."""
        return self._run(self._native.remove_all, [(key, condition)])


class KeyValueTableBase(_TableBase):
    """A table of partitions whose keys have fixed lengths. A key with a secondary part is a pair."""

    @property
    def config(self) -> KeyValueTableConfig:
        """How it was made."""
        return KeyValueTableConfig(*self._native.config)

    def put(self, key, value: bytes, *, condition=None):
        """Puts a value, perhaps only if the key is `ABSENT` or has a version. Returns the new version."""
        return self._run(self._native.update, [(key, value, condition)], then=lambda all: all[0])

    def update(self, puts):
        """Puts several values, all or none: tuples (key, value, condition) that share the primary key."""
        return self._run(self._native.update, list(puts))

    def remove_all(self, keys):
        """Removes several keys that share the primary key, all or none: tuples (key, condition)."""
        return self._run(self._native.remove_all, list(keys))

    def entries(self, *, primary=None, first=None, last=None):
        """Entries by ascending key: all, those of a primary key, or those between two bounds, both inclusive."""
        return self._classes.Entries(self._native.entries(primary, first, last, True))

    def keys(self, *, primary=None, first=None, last=None):
        """As `entries`, without their values, which are not sent then."""
        return self._classes.Keys(self._native.entries(primary, first, last, False))

    def count(self):
        """How many keys there are, roughly while they change."""
        return self._run(self._native.count)


class TableBase(_TableBase):
    """A table of one segment, with keys of any length and the order of changes."""

    def put(self, key: bytes, value: bytes, *, condition=None):
        """Puts a value, perhaps only if the key is `ABSENT` or has a version. Returns the new version."""
        return self._run(self._native.update, [(key, value, condition)], None, then=lambda all: all[0])

    def update(self, puts, *, position: Optional[int] = None):
        """Puts several values, all or none: tuples (key, value, condition). `position`: only if nothing was changed since."""
        return self._run(self._native.update, list(puts), position)

    def remove_all(self, keys):
        """Removes several keys, all or none: tuples (key, condition)."""
        return self._run(self._native.remove_all, list(keys))

    def entries(self):
        """All entries, in no order."""
        return self._classes.Entries(self._native.entries())

    def changes(self, position: int = 0, limit: int = 1000):
        """Entries that were changed behind a position."""
        return self._run(self._native.changes, position, limit, then=lambda all: TableChanges(*all))

    def info(self):
        """How many keys there are, and the position behind the last change."""
        return self._run(self._native.info, then=lambda info: TableInfo(*info))


class RevisionedStreamBase(_Base):
    """A stream of one segment that several clients change by agreement."""

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream

    def latest(self):
        """The place behind the last entry."""
        return self._run(self._native.latest)

    def oldest(self):
        """The place before the first entry that was not truncated."""
        return self._run(self._native.oldest)

    def read(self, start: _native.Revision = _native.Revision(0)):
        """Reads the entries behind a revision, up to the last one that is there now."""
        return self._run(self._native.read, start, then=self._classes.RevisionReader)

    def write(self, entry: bytes):
        """Writes an entry at the end, wherever that is by now."""
        return self._run(self._native.write, entry)

    def write_at(self, expected: _native.Revision, entry: bytes):
        """Writes an entry if `expected` is the latest revision. The revision behind it; None if others were faster."""
        return self._run(self._native.write_at, expected, entry)

    def mark(self):
        """The place that readers who know nothing begin at."""
        return self._run(self._native.mark)

    def replace_mark(self, expected: Optional[_native.Revision], new: Optional[_native.Revision]):
        """Moves the mark. False if it was somewhere else."""
        return self._run(self._native.replace_mark, expected, new)

    def truncate(self, to: _native.Revision):
        """Drops all entries before `to`."""
        return self._run(self._native.truncate, to)


class StateSynchronizerBase(_Base):
    """One process's copy of a shared state, of which a codec says what its bytes mean.

    A codec has the methods ``encode(state)``, ``decode(data)``, ``encode_update(update)``, ``decode_update(data)`` and
    ``apply(state, update)``, which returns the state after the change and comes out alike wherever it is made.
    """

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream

    @property
    def state(self):
        """The state as it was when it was fetched or changed here last; None if there was none."""
        return self._native.state()

    def initialize(self, state):
        """Sets the state if there never was one, and fetches the one that is there. Whether this one was set."""
        return self._run(self._native.initialize, state)

    def fetch(self):
        """Applies all changes that others have made until now, and returns the state."""
        return self._run(self._native.fetch)

    def update(self, decide):
        """Changes the state: `decide(state)` returns changes, and is asked again if others were faster."""
        return self._run(self._native.update, decide)

    def update_anyway(self, updates):
        """Makes changes whatever the state is."""
        return self._run(self._native.update_anyway, list(updates))

    def compact(self):
        """Writes the whole state and drops what lies before the one written last."""
        return self._run(self._native.compact)



class TableSynchronizerBase(_Base):
    """One process's copy of values that several share in a table, each under an outer and an inner key: changes of different
    values do not stand in each other's way."""

    @property
    def table(self) -> str:
        """The table, as SCOPE/TABLE."""
        return self._native.table

    @property
    def maps(self) -> _native.SharedMaps:
        """The values as they were when they were fetched or changed here last."""
        return self._native.maps()

    def fetch(self):
        """Takes over what others have changed until now, and returns the values."""
        return self._run(self._native.fetch)

    def put(self, decide):
        """Puts values, all or none: `decide(maps)` returns tuples (outer key, inner key, value), and is asked again if others
        have changed any of these meanwhile. Returns the values after it."""
        return self._run(self._native.put, decide)

    def remove(self, decide):
        """Removes values, all or none: `decide(maps)` returns tuples (outer key, inner key). Otherwise as `put`."""
        return self._run(self._native.remove, decide)


class IndexWriterBase(_Base):
    """Appends labelled records to a stream of one segment. Of two writers, one is told that the other was there."""

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream

    def append(self, records: Iterable[Tuple[Mapping[str, int], bytes]]):
        """Appends `IndexRecord`s, all or none, and waits until they are stored. All records have the same labels, and no value
        falls. Returns the offset of the first."""
        return self._run(self._native.append, [(dict(labels), data) for labels, data in records])

    def truncate(self, to: int):
        """Drops the records before an offset, which is that of a record."""
        return self._run(self._native.truncate, to)


class IndexReaderBase(_Base):
    """Finds and reads labelled records."""

    @property
    def stream(self) -> str:
        """The stream."""
        return self._native.stream

    @property
    def record_bytes(self) -> int:
        """Size of every record, in bytes."""
        return self._native.record_bytes

    def bounds(self):
        """Offsets of the first record and of the place behind the last."""
        return self._run(self._native.bounds)

    def record(self, offset: int):
        """The record at an offset."""
        return self._run(self._native.record, offset, then=lambda parts: IndexRecord(*parts))

    def search(self, label: str, value: int):
        """Offset of the first record whose label has this value or a greater one; None if all have less."""
        return self._run(self._native.search, label, value)

    def records(self, start: Optional[int] = None):
        """Reads records from an offset on, or from the first, up to the last that is there now."""
        return self._run(self._native.records, start, then=self._classes.IndexRecords)


class IndexRecordsBase(_Base):
    """Goes through labelled records: pairs of an offset and the record there."""

    def _made(self, found: Any) -> Any:
        offset, parts = found
        return offset, IndexRecord(*parts)


class MembershipBase(_Base):
    """Membership of this process in something: it beats, and sees of the others who has stopped."""

    @property
    def name(self) -> str:
        """Its own name."""
        return self._native.name

    def members(self) -> List[Member]:
        """All members by name, as of the last beat. Raises why that failed, if it did; the next is tried all the same."""
        return self._made(self._native.members())

    def leave(self):
        """Stops beating and tells the others. Without it they find out by themselves."""
        return self._run(self._native.leave)

    def _made(self, found: Any) -> List[Member]:
        return [Member(*one) for one in found]
