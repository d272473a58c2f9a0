"""S3: the client of this process, and what its errors mean.

Duty: credentials and endpoint from the environment and the profiles that the AWS tools use, anonymous access without
credentials, retries of requests. Knows not what is read or written.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import OpenError, UserError
from pipeline.uris import S3_SCHEMES, bucket_key, scheme

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 5  # requests before the store's trouble counts as lasting
_CONNECT_S = 10
_READ_S = 20  # without one byte

_KINDS = {
    "404": "not_found",
    "NoSuchKey": "not_found",
    "NoSuchBucket": "not_found",
    "401": "forbidden",
    "403": "forbidden",
    "412": "changed",
    "InvalidObjectState": "archived",
}
_TRANSIENT = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "429", "412"})

_making = threading.Lock()


def require(uri: str) -> None:
    """Raise OpenError where the scheme is not S3's."""
    if scheme(uri) not in S3_SCHEMES:
        raise OpenError("unsupported", f"{scheme(uri)}:// is not a store that can be read")


def object_of(uri: str) -> tuple[str, str]:
    """Return bucket and key. Raises OpenError where the URI names no object."""
    require(uri)
    bucket, key = bucket_key(uri)
    if not bucket or not key or key.endswith("/"):
        raise OpenError("not_a_file", "the URI names no object")
    return bucket, key


def client() -> S3Client:
    """Return this process's client: made once, anew after a fork or when the AWS settings of the environment change."""
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    with _making:
        return _make_client(os.getpid(), settings)


@functools.lru_cache(maxsize=1)
def _make_client(pid: int, settings: tuple[tuple[str, str], ...]) -> S3Client:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", _ATTEMPTS))
        session = boto3.session.Session()
        anonymous: dict[str, Any] = {} if session.get_credentials() else {"signature_version": UNSIGNED}
        config = Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            max_pool_connections=64,
            tcp_keepalive=True,
            retries={"mode": "standard", "total_max_attempts": attempts},
            **anonymous,
        )
        return session.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        hint = "see AWS_PROFILE, AWS_ENDPOINT_URL and ~/.aws"
        raise UserError(f"the AWS settings cannot be used: {error}", hint) from error


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Turn what boto3 and smart_open raise into OpenError, `retryable` where the trouble may pass."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        yield
    except ParamValidationError as error:
        raise OpenError("bad_uri", str(error)) from error
    except BotoCoreError as error:
        raise OpenError("unavailable", str(error), retryable=True) from error
    except ClientError as error:
        raise _refused(error.response) from error
    except OSError as error:  # smart_open's wrapping of the above, or its retries came to their end
        cause = getattr(error, "backend_error", None)
        if isinstance(cause, ClientError):
            raise _refused(cause.response) from error
        raise OpenError("unavailable", str(error), retryable=True) from error


def _refused(response: Any) -> OpenError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    words = response.get("Error", {}).get("Message") or code
    message = words if code in ("", words) else f"{words} ({code})"
    if status.startswith("5") or {code, status} & _TRANSIENT - {"412"}:
        return OpenError("unavailable", message, retryable=True)
    return OpenError(_KINDS.get(code) or _KINDS.get(status, "refused"), message, retryable=status in _TRANSIENT)
