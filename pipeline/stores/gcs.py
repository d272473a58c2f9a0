"""Google Cloud Storage: the client of this process, its requests, and what its errors mean.

Credentials are Google's application default ones (GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth`, the machine's own);
without any, requests are anonymous. STORAGE_EMULATOR_HOST names another server. Patience is ours (`trying.py`), not the
library's. Knows nothing of other stores.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipeline.errors import OpenError, UserError, install
from pipeline.stores.options import CONNECT_S, READ_S
from pipeline.stores.store import Entry
from pipeline.stores.trying import Busy, resumed, tried
from pipeline.uris import address, as_folder, bucket_key, canonical

_KINDS = {401: "forbidden", 403: "forbidden", 404: "not_found", 412: "changed"}
_TRANSIENT = frozenset({408, 429})
_PAGE = 1000  # the most that a store gives
# For every request: none of the library's own retries, which cannot be counted
_ONCE: dict[str, Any] = {"retry": None, "timeout": (CONNECT_S, READ_S)}

Result = TypeVar("Result")
_making = threading.Lock()


def client() -> Any:
    """Return this process's client: made once, anew after a fork or under other settings of the environment."""
    names = ("GOOGLE_", "STORAGE_EMULATOR_HOST", "CLOUDSDK_", "GCLOUD_")
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith(names)))
    with _making:
        return _make_client(os.getpid(), settings)


@functools.lru_cache(maxsize=1)
def _make_client(pid: int, settings: tuple[tuple[str, str], ...]) -> Any:
    _require()
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")  # a request a bucket, for traces
    try:
        credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])
    except DefaultCredentialsError as error:
        if "GOOGLE_APPLICATION_CREDENTIALS" in os.environ:  # they were meant to be used
            raise UserError(f"Google's credentials cannot be used: {error}", "see `gcloud auth`") from error
        credentials, project = AnonymousCredentials(), None  # type: ignore[no-untyped-call]
    return storage.Client(credentials=credentials, project=project)


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Turn what Google's libraries and requests raise into OpenError."""
    _require()
    import requests
    import urllib3
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except InvalidResponse as error:  # of downloads
        raise _refused(error.response.status_code, str(error.response.reason or ""), error) from error
    except GoogleAPICallError as error:
        raise _refused(int(error.code or 0), error.message, error) from error
    except TransportError as error:
        raise Busy(str(error)) from error
    except GoogleAuthError as error:
        raise OpenError("forbidden", str(error)) from error
    except DataCorruption as error:
        raise Busy(str(error)) from error
    except UnicodeError as error:
        raise OpenError("bad_uri", str(error)) from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Busy(str(error)) from error


def stat(uri: str) -> Entry:
    """Look at an object."""
    bucket, key = _object(uri)
    blob = _tried(lambda: client().bucket(bucket).get_blob(key, **_ONCE))
    if blob is None:
        raise OpenError("not_found", "there is no such object")
    return Entry(canonical(uri), blob.size, str(blob.generation), address(uri))


def is_dir(uri: str) -> bool:
    """Say whether anything lies under the prefix."""
    bucket, folder = bucket_key(as_folder(uri))
    return any(page for page in _pages(bucket, folder, page_size=1))


def walk(uri: str) -> Iterator[Entry]:
    """Yield the objects that begin with a prefix; folders' markers are left out."""
    bucket, prefix = bucket_key(uri)
    for page in _pages(bucket, prefix):
        for blob in page:
            if not blob.name.endswith("/"):
                yield Entry(f"gs://{bucket}/{blob.name}", blob.size, str(blob.generation))


def reader(uri: str, version: str, start: int, ahead: int) -> io.RawIOBase:
    """Open an object; one that is not of this version is refused."""
    file = _File(uri, version, ahead)
    return resumed(faults, file.open_at, lambda: file.size, start)


def write(uri: str, data: bytes) -> None:
    """Put an object."""
    bucket, key = _object(uri)
    blob = client().bucket(bucket).blob(key)
    _tried(lambda: blob.upload_from_string(data, "application/octet-stream", checksum="crc32c", **_ONCE))


def move(source: str, target: str) -> None:
    """Copy and delete."""
    (bucket, key), (to_bucket, to_key) = _object(source), _object(target)
    old, new = client().bucket(bucket).blob(key), client().bucket(to_bucket).blob(to_key)
    token, _, _ = _tried(lambda: new.rewrite(old, **_ONCE))
    while token is not None:  # a large object is copied in steps
        token, _, _ = _tried(functools.partial(new.rewrite, old, token=token, **_ONCE))
    delete(source)


def delete(uri: str) -> None:
    """Remove an object; one that is absent is fine."""
    bucket, key = _object(uri)
    try:
        _tried(lambda: client().bucket(bucket).blob(key).delete(**_ONCE))
    except OpenError as error:
        if error.kind != "not_found":
            raise


def names(uri: str) -> list[str]:
    """Return the names of the objects directly under a prefix."""
    bucket, folder = bucket_key(as_folder(uri))
    keys = [blob.name for page in _pages(bucket, folder, delimiter="/") for blob in page]
    return [key.removeprefix(folder) for key in keys if key != folder]


class _File:
    """One version of an object, that of its first answer."""

    def __init__(self, uri: str, version: str, ahead: int) -> None:
        self.size: int | None = None
        self._ahead = ahead
        self._bucket, self._key = _object(uri)
        self._generation = int(version) if version else None

    def open_at(self, position: int) -> tuple[io.BufferedIOBase, bool]:
        import smart_open.gcs

        blob = client().bucket(self._bucket).get_blob(self._key, **_ONCE)
        if blob is None:
            raise OpenError("not_found", "there is no such object")
        self._generation = self._generation or blob.generation
        if blob.generation != self._generation:
            raise OpenError("changed", "the object has changed since it was listed", retryable=True)
        asked = _ONCE | {"if_generation_match": self._generation}
        opened: Any = smart_open.gcs.open(
            self._bucket,
            self._key,
            "rb",
            client=client(),
            get_blob_kwargs=asked,
            blob_open_kwargs={"chunk_size": self._ahead, "raw_download": True, **asked},
        )
        self.size = blob.size
        opened.seek(position)
        return opened, True


def _pages(bucket: str, prefix: str, page_size: int = _PAGE, delimiter: str | None = None) -> Iterator[list[Any]]:
    """Yield the objects of each page, one request each, so that each can be tried again."""
    token: str | None = ""
    while token is not None:
        asked = {"prefix": prefix, "delimiter": delimiter, "page_size": page_size, "page_token": token or None}
        page, token = _tried(functools.partial(_page, bucket, asked))
        yield page


def _page(bucket: str, asked: dict[str, Any]) -> tuple[list[Any], str | None]:
    """Return a page of a listing, and the token of the next one. After a fault Google's iterators cannot go on."""
    listing = client().list_blobs(bucket, **asked, **_ONCE)
    return list(next(listing.pages, ())), listing.next_page_token


def _tried(call: Callable[[], Result]) -> Result:
    return tried(faults, call)


def _require() -> None:
    """Raise UserError where Google's library is not installed."""
    try:
        import google.cloud.storage  # noqa: F401
    except ImportError as error:
        raise UserError("gs:// needs google-cloud-storage", install("gcs")) from error


def _object(uri: str) -> tuple[str, str]:
    bucket, key = bucket_key(uri)
    if not bucket or not key or key.endswith("/"):
        raise OpenError("not_a_file", "the URI names no object")
    return bucket, key


def _refused(status: int, words: str, error: Exception) -> OpenError:
    words = re.sub(r"^[A-Z]+ https?://\S+: ", "", words.strip())
    message = f"{words or type(error).__name__} ({status})"
    if status >= 500 or status in _TRANSIENT:
        return Busy(message)
    return OpenError(_KINDS.get(status, "refused"), message, retryable=status == 412)
