"""S3 and what speaks like it: the client of this process, its requests, and what its errors mean.

Credentials and endpoint come from the environment and the profiles that the AWS tools use, or stand in the URI or the
options; without any, requests are anonymous. Knows nothing of other stores.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipeline.errors import OpenError, UserError
from pipeline.stores.options import CONNECT_S, READ_S, StoreOptions, configured
from pipeline.stores.store import Entry
from pipeline.uris import address, as_folder, bucket_key, canonical, lend, s3_keys

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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


def client(uri: str = "") -> S3Client:
    """Return this process's client, made once, with the credentials of the URI if it has any.

    It is made anew after a fork, or when the AWS settings of the environment or our own change.
    """
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    with _making:
        return _make_client(os.getpid(), settings, configured(), s3_keys(uri))


@functools.lru_cache(maxsize=8)
def _make_client(
    pid: int, settings: tuple[tuple[str, str], ...], options: StoreOptions, keys: tuple[str, str] | None
) -> S3Client:
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", options.store_attempts))
        core = botocore.session.get_session()
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
        key, secret = keys or (None, None)
        session = boto3.session.Session(key, secret, botocore_session=core)
        special: dict[str, Any] = {} if session.get_credentials() else {"signature_version": UNSIGNED}
        if options.endpoint_url or any(name.startswith("AWS_ENDPOINT_URL") for name, _ in settings):
            # AWS's newer checksums are refused by many others
            special |= {
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            max_pool_connections=64,
            tcp_keepalive=True,
            retries={"mode": "standard", "total_max_attempts": attempts},
            **special,
        )
        return session.client("s3", config=config, endpoint_url=options.endpoint_url or None)
    except (BotoCoreError, ValueError) as error:
        hint = "see AWS_PROFILE, AWS_ENDPOINT_URL, --endpoint-url and ~/.aws"
        raise UserError(f"the AWS settings cannot be used: {error}", hint) from error


def _timestamp(value: Any) -> Any:
    """Read a time. Listings have one an object: botocore takes as long for it as for all else of a listing."""
    from botocore.utils import parse_timestamp

    with contextlib.suppress(TypeError, ValueError):
        if "T" in value:
            return datetime.fromisoformat(value)
    return parse_timestamp(value)


def stat(uri: str) -> Entry:
    """Look at an object."""
    bucket, key = _object(uri)
    head = client(uri).head_object(Bucket=bucket, Key=key)
    return Entry(canonical(uri), head["ContentLength"], head["ETag"].strip('"'), address(uri))


def is_dir(uri: str) -> bool:
    """Say whether anything lies under the prefix."""
    bucket, folder = bucket_key(as_folder(uri))
    return bool(client(uri).list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=1).get("KeyCount"))


def walk(uri: str) -> Iterator[Entry]:
    """Yield the objects that begin with a prefix; folders' markers, which some tools make, are left out."""
    bucket, prefix = bucket_key(uri)
    for page in client(uri).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                found = f"s3://{bucket}/{item['Key']}"
                yield Entry(found, item["Size"], item["ETag"].strip('"'), address(lend(found, uri)))


def reader(uri: str, version: str, start: int, ahead: int) -> io.BufferedIOBase:
    """Open an object; one that is not of this version is refused."""
    import smart_open.s3

    bucket, key = _object(uri)
    condition = {"S3.Client.get_object": {"IfMatch": f'"{version}"'}} if version else {}
    opened: io.BufferedIOBase = smart_open.s3.open(
        bucket, key, "rb", client=client(uri), client_kwargs=condition, defer_seek=True
    )
    opened.seek(start)  # the first request
    return opened


def write(uri: str, data: bytes) -> None:
    """Put an object."""
    bucket, key = _object(uri)
    client(uri).put_object(Bucket=bucket, Key=key, Body=data)


def move(source: str, target: str) -> None:
    """Copy and delete."""
    (bucket, key), (to_bucket, to_key) = _object(source), _object(target)
    client(source).copy_object(CopySource={"Bucket": bucket, "Key": key}, Bucket=to_bucket, Key=to_key)
    client(source).delete_object(Bucket=bucket, Key=key)


def delete(uri: str) -> None:
    """Remove an object; one that is absent is fine."""
    bucket, key = _object(uri)
    client(uri).delete_object(Bucket=bucket, Key=key)


def names(uri: str) -> list[str]:
    """Return the names of the objects directly under a prefix."""
    bucket, folder = bucket_key(as_folder(uri))
    pages = client(uri).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder, Delimiter="/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return [key.removeprefix(folder) for key in keys if key != folder]


def _object(uri: str) -> tuple[str, str]:
    bucket, key = bucket_key(uri)
    if not bucket or not key or key.endswith("/"):
        raise OpenError("not_a_file", "the URI names no object")
    return bucket, key


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
