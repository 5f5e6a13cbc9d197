"""The same as `headwater`, for asyncio: what waits there is awaited here. Cancelling an await loses nothing that is read."""

import sys
from typing import Any, Callable, Iterable, List, Optional, Tuple, Union

from . import _facade, _native
from ._values import Member, OidcIssuer, Seconds, Written, seconds

# After so many events, other tasks of the loop have their turn.
_EVENTS_PER_TURN = 1024


class _Async:
    _classes = sys.modules[__name__]

    @staticmethod
    async def _run(method, *arguments, then=None):
        value = await method(*arguments)
        return value if then is None else then(value)


class Client(_Async, _facade.ClientBase):
    __doc__ = _facade.ClientBase.__doc__

    async def close(self) -> None:
        """Stops the store, if it is in this process. Connections go when nobody uses the client any more."""
        await self._native.close()

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()


class _Writing(_Async):
    _native: Any

    async def write(self, event: bytes, routing_key: Any = None) -> None:
        """Hands over an event; waits for room if there is none. `flush` tells that it is stored."""
        if not self._native.try_write(event, routing_key):
            await self._native.write_later(event, routing_key)


class EventWriter(_Writing, _facade.EventWriterBase):
    __doc__ = _facade.EventWriterBase.__doc__

    async def write_many(
        self, events: Iterable[bytes], routing_key: Union[str, Callable[[bytes], str], None] = None
    ) -> int:
        """Hands over all events, and returns how many there were. `routing_key` is one for all, or makes one of each."""
        import asyncio

        count, native = 0, self._native
        for event in events:
            key = routing_key(event) if callable(routing_key) else routing_key
            if not native.try_write(event, key):
                await native.write_later(event, key)
            count += 1
            if count % _EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        return count

    async def store(self, event: bytes, routing_key: Optional[str] = None) -> Written:
        """As `write`, and waits until the event is stored. Returns where."""
        return Written(*await self._native.store(event, routing_key))

    async def __aenter__(self) -> "EventWriter":
        return self

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            await self.flush()


class NumberedWriter(_Async, _facade.NumberedWriterBase):
    __doc__ = _facade.NumberedWriterBase.__doc__

    async def write(self, number: int, event: bytes, routing_key: str) -> None:
        """Hands over an event; waits for room if there is none. `flush` tells that it is stored.

        Whoever cancels this hands the same event over again before any other; `InvalidError` then says that it was taken.
        """
        if not self._native.try_write(number, event, routing_key):
            await self._native.write_later(number, event, routing_key)

    async def write_many(
        self, events: Iterable[Tuple[int, bytes]], routing_key: Union[str, Callable[[bytes], str]]
    ) -> int:
        """Hands over pairs of a number and an event, and returns how many there were. `routing_key` is one for all, or makes
        one of each event."""
        import asyncio

        count = 0
        for number, event in events:
            await self.write(number, event, routing_key(event) if callable(routing_key) else routing_key)
            count += 1
            if count % _EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        return count

    async def store(self, number: int, event: bytes, routing_key: str) -> Written:
        """As `write`, and waits until the event is stored. Returns where; one that was found stored has no offset."""
        return Written(*await self._native.store(number, event, routing_key))

    async def __aenter__(self) -> "NumberedWriter":
        return self

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            await self.flush()


class TransactionWriter(_Async, _facade.TransactionWriterBase):
    __doc__ = _facade.TransactionWriterBase.__doc__

    def transaction(self) -> "_Begun":
        """As `begin`, for an `async with`: commits at its end, and aborts if that is an exception."""
        return _Begun(self)


class _Begun:
    def __init__(self, writer: TransactionWriter) -> None:
        self._writer = writer

    async def __aenter__(self) -> "Transaction":
        self._transaction = await self._writer.begin()
        return self._transaction

    async def __aexit__(self, *raised: Any) -> None:
        await self._transaction.__aexit__(*raised)


class Transaction(_Writing, _facade.TransactionBase):
    __doc__ = _facade.TransactionBase.__doc__

    async def write(self, event: bytes, routing_key: str) -> None:
        """Hands over an event; waits for room if there is none. `commit` waits until it is stored."""
        await super().write(event, routing_key)

    async def __aenter__(self) -> "Transaction":
        return self

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        if not self.is_open:
            return
        if kind is None:
            try:
                await self.commit()
            except BaseException:
                if self.is_open:
                    await self._give_up()
                raise
        else:
            await self._give_up()

    async def _give_up(self) -> None:
        try:
            await self.abort()
        except Exception:
            pass


class ByteWriter(_Async, _facade.ByteWriterBase):
    __doc__ = _facade.ByteWriterBase.__doc__

    async def write(self, data: bytes) -> int:
        """Hands over bytes; waits for room if there is none. `flush` tells that they are stored."""
        if not self._native.try_write(data):
            await self._native.write_later(data)
        return len(data)

    async def __aenter__(self) -> "ByteWriter":
        return self

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            await self.flush()


class ByteReader(_Async, _facade.ByteReaderBase):
    __doc__ = _facade.ByteReaderBase.__doc__

    async def read(self, size: int = 1 << 20) -> bytes:
        """Up to `size` bytes, as many as came together; empty at the end of a sealed stream."""
        return await self._native.read(size)


class _Readable(_Async):
    _native: Any

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        native = self._native
        while True:
            found = native.take()
            if found is not None:
                return found
            await native.fill()

    async def next(self) -> Any:
        """The next one. `StopAsyncIteration` at the end."""
        return await self.__anext__()

    async def read_many(self, limit: int = 1000) -> List[Any]:
        """Up to `limit` that are here; waits for the first one. Empty at the end."""
        native = self._native
        while True:
            found = native.many_now(limit)
            if found is not None:
                return found
            await native.fill()


class StreamReader(_Readable, _facade.StreamReaderBase):
    __doc__ = _facade.StreamReaderBase.__doc__


class SliceReader(_Readable, _facade.SliceReaderBase):
    __doc__ = _facade.SliceReaderBase.__doc__


class RevisionReader(_Readable, _facade.RevisionReaderBase):
    __doc__ = _facade.RevisionReaderBase.__doc__


class _Mapped(_Readable):
    """Makes something of what is read; what comes to nothing is passed over."""

    async def __anext__(self) -> Any:
        while True:
            one = self._made(await super().__anext__())
            if one is not None:
                return one

    async def read_many(self, limit: int = 1000) -> List[Any]:
        while True:
            found = await super().read_many(limit)
            made = [one for one in map(self._made, found) if one is not None]
            if made or not found:
                return made

    def _made(self, found: Any) -> Any:
        raise NotImplementedError


class Entries(_Mapped, _facade.EntriesBase):
    __doc__ = _facade.EntriesBase.__doc__
    _made = _facade.EntriesBase._made


class Keys(_Mapped, _facade.KeysBase):
    __doc__ = _facade.KeysBase.__doc__
    _made = _facade.KeysBase._made


class EventReader(_Mapped, _facade.EventReaderBase):
    __doc__ = _facade.EventReaderBase.__doc__
    _made = _facade.EventReaderBase._made

    async def read_batch(self, limit: int = 1000) -> Any:
        """Up to `limit` events of one segment that are here, as an `EventBatch`; waits for the first one. `None` at the end.

        The fastest way to read. All of the batch counts as handed out.
        """
        native = self._native
        while True:
            found = native.batch_now(limit)
            if found is NotImplemented:
                await native.fill()
            elif found is None:
                return None
            else:
                made = self._made(found)
                if made is not None:
                    return made

    async def __aenter__(self) -> "EventReader":
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()


class AcknowledgingReader(_Readable, _facade.AcknowledgingReaderBase):
    __doc__ = _facade.AcknowledgingReaderBase.__doc__

    async def __aenter__(self) -> "AcknowledgingReader":
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()


class ReaderGroup(_Async, _facade.ReaderGroupBase):
    __doc__ = _facade.ReaderGroupBase.__doc__


class CheckpointUnderWay(_Async, _facade.CheckpointUnderWayBase):
    __doc__ = _facade.CheckpointUnderWayBase.__doc__


class KeyValueTable(_Async, _facade.KeyValueTableBase):
    __doc__ = _facade.KeyValueTableBase.__doc__


class Table(_Async, _facade.TableBase):
    __doc__ = _facade.TableBase.__doc__


class RevisionedStream(_Async, _facade.RevisionedStreamBase):
    __doc__ = _facade.RevisionedStreamBase.__doc__


class StateSynchronizer(_Async, _facade.StateSynchronizerBase):
    __doc__ = _facade.StateSynchronizerBase.__doc__


class TableSynchronizer(_Async, _facade.TableSynchronizerBase):
    __doc__ = _facade.TableSynchronizerBase.__doc__


class IndexWriter(_Async, _facade.IndexWriterBase):
    __doc__ = _facade.IndexWriterBase.__doc__


class IndexReader(_Async, _facade.IndexReaderBase):
    __doc__ = _facade.IndexReaderBase.__doc__


class IndexRecords(_Mapped, _facade.IndexRecordsBase):
    __doc__ = _facade.IndexRecordsBase.__doc__
    _made = _facade.IndexRecordsBase._made


class Membership(_Async, _facade.MembershipBase):
    __doc__ = _facade.MembershipBase.__doc__

    async def changed(self) -> List[Member]:
        """Waits until the members are others, or healthy in another way, than when this was called last."""
        while True:
            found = self._native.take()
            if found is not None:
                return self._made(found)
            await self._native.fill()

    async def __aenter__(self) -> "Membership":
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.leave()


def connect(
    address: str,
    *,
    trust: Any = None,
    basic: Any = None,
    bearer: Optional[str] = None,
    oidc: Optional[OidcIssuer] = None,
    connect_timeout: Optional[Seconds] = None,
    request_timeout: Optional[Seconds] = None,
    retry_for: Optional[Seconds] = None,
) -> Client:
    """As `headwater.connect`. Nothing is awaited: it connects when it is first used."""
    options = _facade.connect_options(trust, basic, bearer, oidc, connect_timeout, request_timeout, retry_for)
    return Client(_native._connect(address, options))


async def open(
    directory: Any, *, memory_bytes: Optional[int] = None, retention_every: Optional[Seconds] = None
) -> Client:
    """As `headwater.open`."""
    return Client(await _native._open(directory, memory_bytes, seconds(retention_every)))


async def memory() -> Client:
    """As `headwater.memory`."""
    return Client(await _native._open(None, None, None))
