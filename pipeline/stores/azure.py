"""Azure Blob Storage: the clients of this process, their requests, and what their errors mean.

`az://CONTAINER/NAME` lies in the account of the environment, `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/NAME` says
its own. Credentials: a SAS token in the URI, else AZURE_STORAGE_CONNECTION_STRING, _SAS_TOKEN, _KEY or _ACCOUNT_KEY,
else Entra's (`az login`, service principals, managed identities); without any, requests are anonymous. Patience is ours
(`trying.py`), not the library's. Knows nothing of other stores.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipeline.errors import OpenError, UserError, install
from pipeline.stores.options import CONNECT_S, READ_S
from pipeline.stores.store import AHEAD, Entry
from pipeline.stores.trying import Busy, resumed, tried
from pipeline.uris import address, as_folder, azure_parts, canonical, lend

_KINDS = {400: "bad_uri", 401: "forbidden", 403: "forbidden", 404: "not_found", 412: "changed"}
_TRANSIENT = frozenset({408, 429})
_PAGE = 1000  # some 10 MB in the library's objects; the store would give 5000
_COPY_POLL_S = 0.5

Result = TypeVar("Result")
_making = threading.Lock()


def client(uri: str) -> Any:
    """Return this process's client for the URI's account: made once, anew after a fork or under other settings."""
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AZURE_")))
    host, _, _, token = azure_parts(uri)
    with _making:
        return _make_client(os.getpid(), settings, host, token)


@functools.lru_cache(maxsize=8)
def _make_client(pid: int, settings: tuple[tuple[str, str], ...], host: str, token: str) -> Any:
    _require()
    from azure.storage.blob import BlobServiceClient, ExponentialRetry

    have = {name.removeprefix("AZURE_STORAGE_"): value for name, value in settings if value}
    policy: dict[str, Any] = {
        "retry_policy": ExponentialRetry(retry_total=0),
        "connection_timeout": CONNECT_S,
        "read_timeout": READ_S,
        "max_chunk_get_size": AHEAD,
        "max_single_get_size": AHEAD,
    }
    text = have.get("CONNECTION_STRING", "")
    try:
        if text and not token and (not host or f"accountname={host.partition('.')[0]};" in f"{text.lower()};"):
            return BlobServiceClient.from_connection_string(text, **policy)
        url = _account_url(host, have)
        credential = token or have.get("SAS_TOKEN") or have.get("KEY") or have.get("ACCOUNT_KEY") or _entra()
        return BlobServiceClient(url, credential, **policy)
    except ValueError as error:
        raise UserError(f"the Azure settings cannot be used: {error}", "see AZURE_STORAGE_*") from error


def _account_url(host: str, have: dict[str, str]) -> str:
    """Return the address of the account: of the URI, else of the environment."""
    if host:
        return "https://" + host.replace(".dfs.", ".blob.", 1)
    if "SERVICE_ENDPOINT" in have:
        return have["SERVICE_ENDPOINT"]
    name = have.get("ACCOUNT_NAME") or have.get("ACCOUNT")
    if not name:
        raise UserError(
            "az:// needs to know the storage account",
            "set AZURE_STORAGE_ACCOUNT, or write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/...",
        )
    return f"https://{name}.blob.core.windows.net"


def _entra() -> Any:
    """Return the credential of `az login`, a service principal or the machine; None where there is none."""
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import DefaultAzureCredential

    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)  # it tells each place where it found nothing
    credential = DefaultAzureCredential()
    try:
        credential.get_token("https://storage.azure.com/.default")
    except ClientAuthenticationError as error:
        if "AZURE_CLIENT_ID" in os.environ:  # it was meant to be used
            raise UserError(f"the Azure credentials cannot be used: {error}", "see `az login`") from error
        return None
    return credential


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Turn what Azure's libraries raise into OpenError."""
    _require()
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except HttpResponseError as error:
        if error.status_code is not None:
            raise _refused(error) from error
        if isinstance(error, ClientAuthenticationError):
            raise OpenError("forbidden", _first_line(error)) from error
        raise Busy(_first_line(error)) from error
    except (AzureError, OSError) as error:
        raise Busy(_first_line(error)) from error
    except (ValueError, UnicodeError) as error:  # a name that cannot be one
        raise OpenError("bad_uri", str(error)) from error


def stat(uri: str) -> Entry:
    """Look at a blob."""
    found = _tried(lambda: _blob(uri).get_blob_properties())
    if _is_folder(found):
        raise OpenError("not_a_file", "it is a folder, not a file")
    return Entry(canonical(uri), found.size, found.etag.strip('"'), address(uri))


def is_dir(uri: str) -> bool:
    """Say whether anything lies under the prefix."""
    folder = azure_parts(as_folder(uri))[2]
    return any(page for page in _pages(uri, folder, page_size=1))


def walk(uri: str) -> Iterator[Entry]:
    """Yield the blobs that begin with a prefix; folders, which some accounts have, are left out."""
    base = canonical(uri)
    prefix = azure_parts(uri)[2]
    root = base[: len(base) - len(prefix)]
    for page in _pages(uri, prefix):
        for blob in page:
            if not blob.name.endswith("/") and not _is_folder(blob):
                found = root + blob.name
                yield Entry(found, blob.size, blob.etag.strip('"'), address(lend(found, uri)))


def reader(uri: str, version: str, start: int, ahead: int) -> io.RawIOBase:
    """Open a blob; one that is not of this version is refused."""
    file = _File(uri, version, ahead)
    return resumed(faults, file.open_at, lambda: file.size, start)


def write(uri: str, data: bytes) -> None:
    """Put a blob."""
    _tried(lambda: _blob(uri).upload_blob(data, overwrite=True))


def move(source: str, target: str) -> None:
    """Copy and delete."""
    old, new = _blob(source), _blob(target)
    status = _tried(lambda: new.start_copy_from_url(old.url))["copy_status"]
    while status == "pending":
        time.sleep(_COPY_POLL_S)
        status = _tried(new.get_blob_properties).copy.status
    if status != "success":
        raise Busy(f"copying to {canonical(target)} ended as {status}")
    delete(source)


def delete(uri: str) -> None:
    """Remove a blob; one that is absent is fine."""
    try:
        _tried(lambda: _blob(uri).delete_blob())
    except OpenError as error:
        if error.kind != "not_found":
            raise


def names(uri: str) -> list[str]:
    """Return the names of the blobs directly under a prefix."""
    from azure.storage.blob import BlobProperties

    folder = azure_parts(as_folder(uri))[2]
    found = [blob for page in _pages(uri, folder, flat=False) for blob in page]
    keys = [blob.name for blob in found if isinstance(blob, BlobProperties) and not _is_folder(blob)]
    return [key.removeprefix(folder) for key in keys if key != folder]


class _File:
    """One version of a blob, that of its first answer."""

    def __init__(self, uri: str, version: str, ahead: int) -> None:
        self.size: int | None = None
        self._ahead = ahead
        self._uri = uri
        self._etag = f'"{version}"' if version else ""

    def open_at(self, position: int) -> tuple[io.BufferedIOBase, bool]:
        import smart_open.azure
        from azure.core import MatchConditions

        blob = _blob(self._uri)
        self._etag = self._etag or blob.get_blob_properties().etag
        # smart_open asks for piece after piece: each must be of this version
        condition = {"etag": self._etag, "match_condition": MatchConditions.IfNotModified}
        blob.download_blob = functools.partial(blob.download_blob, **condition)
        opened: io.BufferedIOBase = smart_open.azure.open(
            blob.container_name, blob.blob_name, "rb", client=blob, buffer_size=self._ahead
        )
        self.size = opened.seek(0, os.SEEK_END)
        opened.seek(position)
        return opened, True


def _pages(uri: str, prefix: str, page_size: int = _PAGE, *, flat: bool = True) -> Iterator[list[Any]]:
    """Yield the blobs of each page, one request each, so that each can be tried again."""
    container = client(uri).get_container_client(azure_parts(uri)[1])
    list_them = container.list_blobs if flat else container.walk_blobs
    token: str | None = ""
    while token is not None:
        listing = list_them(name_starts_with=prefix, include=["metadata"], results_per_page=page_size)
        page, token = _tried(functools.partial(_page, listing, token))
        yield page


def _page(listing: Any, token: str) -> tuple[list[Any], str | None]:
    """Return a page of a listing, and the token of the next one."""
    pages = listing.by_page(token or None)
    return list(next(pages, ())), pages.continuation_token or None


def _tried(call: Callable[[], Result]) -> Result:
    return tried(faults, call)


def _require() -> None:
    """Raise UserError where Azure's libraries are not installed."""
    try:
        import azure.identity
        import azure.storage.blob  # noqa: F401
    except ImportError as error:
        message = "az:// needs azure-storage-blob and azure-identity"
        raise UserError(message, install("azure")) from error


def _blob(uri: str) -> Any:
    _, container, key, _ = azure_parts(uri)
    if not container or not key or key.endswith("/"):
        raise OpenError("not_a_file", "the URI names no blob")
    return client(uri).get_blob_client(container, key)


def _is_folder(found: Any) -> bool:
    """Say whether it is a directory of an account with a hierarchical namespace, which are listed as empty blobs."""
    return str((found.metadata or {}).get("hdi_isfolder", "")).lower() == "true"


def _refused(error: Any) -> OpenError:
    status = int(error.status_code)
    code = getattr(error, "error_code", None) or ""
    code = getattr(code, "value", code)  # a member of an enumeration, where the library knows it
    message = f"{_first_line(error)} ({code or status})"
    if status >= 500 or status in _TRANSIENT:
        return Busy(message)
    return OpenError(_KINDS.get(status, "refused"), message, retryable=status == 412)


def _first_line(error: BaseException) -> str:
    return (getattr(error, "message", "") or str(error) or type(error).__name__).splitlines()[0].strip()
