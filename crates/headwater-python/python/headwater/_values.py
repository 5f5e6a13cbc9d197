"""What streams, groups and tables are configured with, and what comes back."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ._errors import InvalidError
from ._native import StreamCut, Version

#: Seconds, or a ``timedelta``.
Seconds = Union[float, timedelta]

#: As a condition of a change: the table does not have the key.
ABSENT = "absent"


def seconds(value: Optional[Seconds]) -> Optional[float]:
    return value.total_seconds() if isinstance(value, timedelta) else value


def certificates(trust: Union[str, bytes, None]) -> Optional[List[int]]:
    if isinstance(trust, str):
        with open(trust, "rb") as file:
            trust = file.read()
    return None if trust is None else list(trust)


class SignIn(NamedTuple):
    """What a person has to do in order to sign in, within ``time`` seconds: enter ``code`` at ``address``, with a browser on
    any device. ``address_with_code`` has the code in it, if the issuer makes such addresses.
    """

    address: str
    code: str
    address_with_code: Optional[str]
    time: float


@dataclass(frozen=True)
class OidcIssuer:
    """An issuer of OpenID Connect tokens, and what it knows this program as: ``connect(address, oidc=OidcIssuer(...))``.
    Tokens are renewed before they end.

    ``address``: what its tokens have as ``iss``, ``https://`` or on this machine. ``client``, ``secret``: what it knows this
    program by. ``scope``: several with spaces between them. ``audience``: for issuers that want it. ``trust``: certificates, as
    `connect` takes them for the store; without any, those that the system trusts. ``answer_timeout``: how long it may take.

    With ``on_sign_in`` a person signs in on any device (RFC 8628), and it is called with a `SignIn` when that has to be done:
    when the first token is needed, and when the issuer takes the refresh token no more. Without it tokens are for the program
    itself, which needs a secret.

    ``refresh_token``: one from before, so that nobody has to sign in again. ``on_refresh_token`` is called with each new one, to
    be kept; it is a secret. Both functions are called on a thread of the package's own that has other things to do, too: they
    must not wait, least of all for anything of this package. What they raise goes to ``sys.unraisablehook``.
    """

    address: str
    client: str
    secret: Optional[str] = field(default=None, repr=False)
    scope: Optional[str] = None
    audience: Optional[str] = None
    trust: Union[str, bytes, None] = field(default=None, repr=False)
    answer_timeout: Seconds = 10.0
    refresh_token: Optional[str] = field(default=None, repr=False)
    on_refresh_token: Optional[Callable[[str], Any]] = None
    on_sign_in: Optional[Callable[[SignIn], Any]] = None

    def _native(self) -> Dict[str, Any]:
        ask = self.on_sign_in
        return {
            "address": self.address,
            "client": self.client,
            "secret": self.secret,
            "scope": self.scope,
            "audience": self.audience,
            "trust": certificates(self.trust),
            "answer_timeout": seconds(self.answer_timeout),
            "refresh_token": self.refresh_token,
            "on_refresh_token": self.on_refresh_token,
            "on_sign_in": None if ask is None else lambda *parts: ask(SignIn(*parts)),
        }


@dataclass(frozen=True)
class Fixed:
    """So many segments, never more or fewer by themselves."""

    segments: int = 1


@dataclass(frozen=True)
class ByThroughput:
    """A segment that takes more than ``target`` KB/s is split into ``factor``; there are never fewer than ``segments_min``."""

    target: int
    factor: int = 2
    segments_min: int = 1


@dataclass(frozen=True)
class ByEventRate:
    """As `ByThroughput`, by events per second."""

    target: int
    factor: int = 2
    segments_min: int = 1


@dataclass(frozen=True)
class RetainTime:
    """What is younger than ``min`` is kept; what is older than ``max`` goes even if readers want it."""

    min: Seconds
    max: Optional[Seconds] = None


@dataclass(frozen=True)
class RetainSize:
    """So many bytes are kept; never more than ``max_bytes`` even if readers want them."""

    min_bytes: int
    max_bytes: Optional[int] = None


@dataclass(frozen=True)
class StreamConfig:
    """What a stream is configured to be."""

    scaling: Union[Fixed, ByThroughput, ByEventRate] = Fixed()
    retention: Union[RetainTime, RetainSize, None] = None
    tags: Sequence[str] = ()
    timestamp_aggregation_timeout: Seconds = 0.0
    rollover_bytes: int = 0

    def _native(self) -> Dict[str, Any]:
        scaling, retention = self.scaling, self.retention
        made: Dict[str, Any] = {"target": 0, "factor": 0, "retention": None, "min": 0.0, "max": None}
        if isinstance(scaling, Fixed):
            made.update(scaling="fixed", segments=scaling.segments)
        elif isinstance(scaling, (ByThroughput, ByEventRate)):
            word = "throughput" if isinstance(scaling, ByThroughput) else "event-rate"
            made.update(scaling=word, segments=scaling.segments_min, target=scaling.target, factor=scaling.factor)
        else:
            raise InvalidError(f"{scaling!r} is no way to scale")
        if isinstance(retention, RetainTime):
            made.update(retention="time", min=seconds(retention.min), max=seconds(retention.max))
        elif isinstance(retention, RetainSize):
            made.update(retention="size", min=float(retention.min_bytes))
            made["max"] = None if retention.max_bytes is None else float(retention.max_bytes)
        elif retention is not None:
            raise InvalidError(f"{retention!r} is no way to retain")
        made["tags"] = list(self.tags)
        made["timestamp_aggregation_timeout"] = seconds(self.timestamp_aggregation_timeout)
        made["rollover_bytes"] = self.rollover_bytes
        return made

    @staticmethod
    def _of(sent: Mapping[str, Any]) -> "StreamConfig":
        scaling: Union[Fixed, ByThroughput, ByEventRate]
        if sent["scaling"] == "fixed":
            scaling = Fixed(sent["segments"])
        else:
            kind = ByThroughput if sent["scaling"] == "throughput" else ByEventRate
            scaling = kind(sent["target"], sent["factor"], sent["segments"])
        retention: Union[RetainTime, RetainSize, None] = None
        if sent["retention"] == "time":
            retention = RetainTime(sent["min"], sent["max"])
        elif sent["retention"] == "size":
            retention = RetainSize(int(sent["min"]), None if sent["max"] is None else int(sent["max"]))
        timeout, rollover = sent["timestamp_aggregation_timeout"], sent["rollover_bytes"]
        return StreamConfig(scaling, retention, tuple(sent["tags"]), timeout, rollover)


@dataclass(frozen=True)
class ReaderGroupConfig:
    """How a group reads: ``streams`` maps each to the cut where reading begins, or ``None`` for its begin."""

    streams: Mapping[str, Optional[StreamCut]]
    ends: Sequence[StreamCut] = ()
    automatic_checkpoint: Optional[Seconds] = 30.0
    refresh: Seconds = 3.0
    checkpoints_max: int = 3
    #: Whether what is not read is kept from being truncated: ``None``, "cut" or "checkpoint".
    retention: Optional[str] = None

    def _native(self) -> Dict[str, Any]:
        return {
            "streams": list(self.streams.items()),
            "ends": list(self.ends),
            "automatic_checkpoint": seconds(self.automatic_checkpoint),
            "refresh": seconds(self.refresh),
            "checkpoints_max": self.checkpoints_max,
            "retention": self.retention,
        }

    @staticmethod
    def _of(sent: Sequence[Any]) -> "ReaderGroupConfig":
        streams, ends, *rest = sent
        return ReaderGroupConfig(dict(streams), tuple(ends), *rest)


class SegmentRange(NamedTuple):
    """A segment and the part of the key space [0, 1) that it owns."""

    id: int
    low: float
    high: float


class Successor(NamedTuple):
    """A segment that follows on a sealed one, and the ids of all segments that it follows on."""

    segment: SegmentRange
    predecessors: Sequence[int]


class SegmentInfo(NamedTuple):
    """What a segment holds, in bytes; ``last_modified`` in seconds since 1970."""

    start: int
    end: int
    sealed: bool
    last_modified: float


class Slice(NamedTuple):
    """A part of a segment that can be read on its own."""

    stream: str
    segment: int
    start: int
    end: int


class Written(NamedTuple):
    """Where an event was stored. ``offset`` is ``None`` if the acknowledgement was lost and the event was found stored."""

    segment: int
    offset: Optional[int]
    length: int


class CheckpointReached(NamedTuple):
    """Comes between two events: everything before it is part of the checkpoint of this name."""

    name: str


class TimeWindow(NamedTuple):
    """Between which times a group reads, in the unit of `note_time`.

    Nothing that is read from here on was written before ``lower``, and nothing that was read after ``upper``, as far as writers
    noted times; ``None`` where that is not known, as ``upper`` at the end of the stream.
    """

    lower: Optional[int]
    upper: Optional[int]


class IndexRecord(NamedTuple):
    """Values by label, each of 0 to 2^64 - 1, and data. A label has 1 to 255 bytes."""

    labels: Mapping[str, int]
    data: bytes


class Member(NamedTuple):
    """A member as the others see it: whether it has beaten lately."""

    name: str
    is_healthy: bool


class Entry(NamedTuple):
    """A key with what it holds. ``secondary`` is empty in tables without such keys."""

    key: bytes
    secondary: bytes
    value: bytes
    version: Version


class EntryKey(NamedTuple):
    """A key without what it holds."""

    key: bytes
    secondary: bytes
    version: Version


class TableChanges(NamedTuple):
    """Entries changed behind a position; ``next`` is where to go on."""

    entries: Sequence[Tuple[bytes, bytes, Version]]
    next: int
    is_end: bool
    start_over: bool


class TableInfo(NamedTuple):
    """How many keys a table has, and the position behind its last change."""

    entries: int
    end: int


class KeyValueTableConfig(NamedTuple):
    """Partitions of a table, and the lengths of both parts of its keys in bytes."""

    partitions: int
    primary_key_bytes: int
    secondary_key_bytes: int
    rollover_bytes: int
