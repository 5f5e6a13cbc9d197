"""The blocking classes: calls return when they are done, with the interpreter left to other threads meanwhile."""

import sys
from typing import Any, List, Optional

from . import _facade, _native
from ._values import Member, OidcIssuer, Seconds, Written, seconds


class _Blocking:
    _classes = sys.modules[__name__]

    @staticmethod
    def _run(method, *arguments, then=None):
        value = method(*arguments).wait()
        return value if then is None else then(value)


class Pending:
    """An event on its way."""

    __slots__ = ("_pending",)

    def __init__(self, pending: Any) -> None:
        self._pending = pending

    def done(self) -> bool:
        """Whether it is decided what has become of it."""
        return self._pending.done()

    def result(self, timeout: Optional[Seconds] = None) -> Written:
        """Waits until the event is stored."""
        return Written(*self._pending.wait(seconds(timeout)))


class Client(_Blocking, _facade.ClientBase):
    __doc__ = _facade.ClientBase.__doc__

    def close(self) -> None:
        """Stops the store, if it is in this process. Connections go when nobody uses the client any more."""
        self._native.close().wait()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class EventWriter(_Blocking, _facade.EventWriterBase):
    __doc__ = _facade.EventWriterBase.__doc__

    def __init__(self, native: Any) -> None:
        super().__init__(native)
        # Without a call in between: they are called for every event.
        self.write = native.write
        self.write_many = native.write_many

    def submit(self, event: bytes, routing_key: Optional[str] = None) -> Pending:
        """As `write`; what is returned tells when the event is stored, and where."""
        return Pending(self._native.submit(event, routing_key))

    def flush(self, timeout: Optional[Seconds] = None) -> None:
        """Waits until everything that was handed over before is stored; raises the first failure of any event, and
        `TimeoutError` after `timeout` seconds: what is not stored by then is still under way, and the next flush waits for it
        and tells of it."""
        if timeout is None:
            self._native.flush().wait()
        elif not self._native.flush_within(seconds(timeout)).wait():
            raise TimeoutError("not everything is stored within the time given")

    def __enter__(self) -> "EventWriter":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        # Whoever raised has other worries than what is under way.
        if kind is None:
            self.flush()


class NumberedWriter(_Blocking, _facade.NumberedWriterBase):
    __doc__ = _facade.NumberedWriterBase.__doc__

    def __init__(self, native: Any) -> None:
        super().__init__(native)
        self.write = native.write
        self.write_many = native.write_many

    def submit(self, number: int, event: bytes, routing_key: str) -> Pending:
        """As `write`; what is returned tells when the event is stored, and where. One that was found stored has no offset."""
        return Pending(self._native.submit(number, event, routing_key))

    def __enter__(self) -> "NumberedWriter":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.flush()


class TransactionWriter(_Blocking, _facade.TransactionWriterBase):
    __doc__ = _facade.TransactionWriterBase.__doc__

    def transaction(self) -> "Transaction":
        """As `begin`, for a `with`: commits at its end, and aborts if that is an exception."""
        return self.begin()


class Transaction(_Blocking, _facade.TransactionBase):
    __doc__ = _facade.TransactionBase.__doc__

    def __init__(self, native: Any) -> None:
        super().__init__(native)
        self.write = native.write

    def __enter__(self) -> "Transaction":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if not self.is_open:
            return
        if kind is None:
            try:
                self.commit()
            except BaseException:
                # It is open if an event could not be stored.
                if self.is_open:
                    self._give_up()
                raise
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Aborts on the way out of an exception, which is more than that this fails: the lease ends it, too."""
        try:
            self.abort()
        except Exception:
            pass


class ByteWriter(_Blocking, _facade.ByteWriterBase):
    __doc__ = _facade.ByteWriterBase.__doc__

    def __init__(self, native: Any) -> None:
        super().__init__(native)
        self.write = native.write

    def __enter__(self) -> "ByteWriter":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.flush()


class ByteReader(_Blocking, _facade.ByteReaderBase):
    __doc__ = _facade.ByteReaderBase.__doc__

    def read(self, size: int = 1 << 20, *, timeout: Optional[Seconds] = None) -> bytes:
        """Up to `size` bytes, as many as came together; empty at the end of a sealed stream."""
        return self._native.read(size).wait_or_give_up(seconds(timeout))


class _Readable(_Blocking):
    """Reads one by one."""

    _native: Any

    def __iter__(self) -> Any:
        return iter(self._native)

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: Optional[Seconds] = None) -> Any:
        """The next one. `StopIteration` at the end, `TimeoutError` after `timeout` seconds; nothing is lost then."""
        return self._native.next(seconds(timeout))

    def read_many(self, limit: int = 1000, timeout: Optional[Seconds] = None) -> List[Any]:
        """Up to `limit` that are here; waits for the first one. Empty at the end."""
        return self._native.many(limit, seconds(timeout))


class StreamReader(_Readable, _facade.StreamReaderBase):
    __doc__ = _facade.StreamReaderBase.__doc__


class SliceReader(_Readable, _facade.SliceReaderBase):
    __doc__ = _facade.SliceReaderBase.__doc__


class RevisionReader(_Readable, _facade.RevisionReaderBase):
    __doc__ = _facade.RevisionReaderBase.__doc__


class _Mapped(_Readable):
    """Makes something of what is read; what comes to nothing is passed over."""

    def __iter__(self) -> Any:
        made = map(self._made, self._native)
        return (one for one in made if one is not None)

    def next(self, timeout: Optional[Seconds] = None) -> Any:
        while True:
            one = self._made(super().next(timeout))
            if one is not None:
                return one

    def read_many(self, limit: int = 1000, timeout: Optional[Seconds] = None) -> List[Any]:
        while True:
            found = super().read_many(limit, timeout)
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

    def read_batch(self, limit: int = 1000, timeout: Optional[Seconds] = None) -> Any:
        """Up to `limit` events of one segment that are here, as an `EventBatch`; waits for the first one. `None` at the end.

        The fastest way to read. All of the batch counts as handed out.
        """
        while True:
            found = self._native.batch(limit, seconds(timeout))
            if found is None:
                return None
            made = self._made(found)
            if made is not None:
                return made

    def __enter__(self) -> "EventReader":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class AcknowledgingReader(_Readable, _facade.AcknowledgingReaderBase):
    __doc__ = _facade.AcknowledgingReaderBase.__doc__

    def __enter__(self) -> "AcknowledgingReader":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class ReaderGroup(_Blocking, _facade.ReaderGroupBase):
    __doc__ = _facade.ReaderGroupBase.__doc__


class CheckpointUnderWay(_Blocking, _facade.CheckpointUnderWayBase):
    __doc__ = _facade.CheckpointUnderWayBase.__doc__


class KeyValueTable(_Blocking, _facade.KeyValueTableBase):
    __doc__ = _facade.KeyValueTableBase.__doc__


class Table(_Blocking, _facade.TableBase):
    __doc__ = _facade.TableBase.__doc__


class RevisionedStream(_Blocking, _facade.RevisionedStreamBase):
    __doc__ = _facade.RevisionedStreamBase.__doc__


class StateSynchronizer(_Blocking, _facade.StateSynchronizerBase):
    __doc__ = _facade.StateSynchronizerBase.__doc__


class TableSynchronizer(_Blocking, _facade.TableSynchronizerBase):
    __doc__ = _facade.TableSynchronizerBase.__doc__


class IndexWriter(_Blocking, _facade.IndexWriterBase):
    __doc__ = _facade.IndexWriterBase.__doc__


class IndexReader(_Blocking, _facade.IndexReaderBase):
    __doc__ = _facade.IndexReaderBase.__doc__


class IndexRecords(_Mapped, _facade.IndexRecordsBase):
    __doc__ = _facade.IndexRecordsBase.__doc__
    _made = _facade.IndexRecordsBase._made


class Membership(_Blocking, _facade.MembershipBase):
    __doc__ = _facade.MembershipBase.__doc__

    def changed(self, timeout: Optional[Seconds] = None) -> List[Member]:
        """Waits until the members are others, or healthy in another way, than when this was called last."""
        return self._made(self._native.next(seconds(timeout)))

    def __enter__(self) -> "Membership":
        return self

    def __exit__(self, *_: Any) -> None:
        self.leave()


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
    """A client of the controllers at ``tcp://HOST[:PORT]`` or ``tls://HOST[:PORT]``, several separated by commas.

    ``trust``: certificates (PEM, as bytes or the path of a file) of whom to trust with TLS. ``basic``: user and password.
    ``bearer``: a token. ``oidc``: an issuer of tokens. It connects when it is first used.
    """
    options = _facade.connect_options(trust, basic, bearer, oidc, connect_timeout, request_timeout, retry_for)
    return Client(_native._connect(address, options))


def open(
    directory: Any, *, memory_bytes: Optional[int] = None, retention_every: Optional[Seconds] = None
) -> Client:
    """Opens the store in a directory, in this process, and returns a client of it: what is acknowledged is durable."""
    return Client(_native._open(directory, memory_bytes, seconds(retention_every)).wait())


def memory() -> Client:
    """A new store in memory, which is gone when its client is: for tests."""
    return Client(_native._open(None, None, None).wait())
