"""What goes wrong, in kinds that tell a caller what to do about it."""

from typing import Dict, Type


class Error(Exception):
    """Anything the client or the store says no with. ``code`` is a stable word for its kind."""

    code: str = "unknown"


class InvalidError(Error, ValueError):
    """An argument is wrong and will stay so. Nothing was done."""

    code = "invalid"


class NotFoundError(Error):
    """The scope, stream, segment, table, group, transaction or key does not exist."""

    code = "not-found"


class AlreadyExistsError(Error):
    """It exists already."""

    code = "already-exists"


class ConflictError(Error):
    """It is in another state than the operation needs. Look again and decide again."""

    code = "conflict"


class SealedError(Error):
    """The stream or segment takes no more data. Nothing was stored."""

    code = "sealed"


class TruncatedError(Error):
    """What was to be read has been truncated."""

    code = "truncated"


class UnauthenticatedError(Error):
    """The server does not know who calls."""

    code = "unauthenticated"


class DeniedError(Error):
    """The server knows who calls and says no."""

    code = "denied"


class UnavailableError(Error):
    """No answer within the time for retries. What was asked **may have happened**."""

    code = "unavailable"


class ExhaustedError(Error):
    """The server has no room, or a limit is reached. Later may be better."""

    code = "exhausted"


class UnsupportedError(Error):
    """The server is too old, or does not do that."""

    code = "unsupported"


class ProtocolError(Error):
    """The server says what no server should say."""

    code = "protocol"


class ClosedError(Error):
    """The client, writer or reader was closed."""

    code = "closed"


class NotStartedError(Error):
    """A store could not be opened in this process."""

    code = "not-started"


# By code, for the native part. The empty one stands for codes that are not known here.
_BY_CODE: Dict[str, Type[Error]] = {kind.code: kind for kind in Error.__subclasses__()}
_BY_CODE[""] = Error
