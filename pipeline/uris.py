"""URIs as text: the one spelling that identifies a file, and paths on this machine.

Duty: what a URI means, without looking whether anything is there. Knows no store.

A local file's URI is its absolute path, or, where the name is not valid UTF-8, a percent-encoded `file://` URI. An S3
key stands in its URI as it is, never percent-encoded.
"""

from __future__ import annotations

import os
import posixpath
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

S3_SCHEMES = ("s3", "s3a", "s3n")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# Query keys that sign a URL or carry credentials. The later two sets have everyday names, so they count only beside a
# key that proves what they are.
_SIGNING = ("x-amz-", "x-goog-")
_SIGNING_V2 = frozenset({"expires", "signature", "policy"})
_SIGNERS_V2 = frozenset({"awsaccesskeyid", "googleaccessid", "key-pair-id"})
_AZURE = re.compile(r"sv|ss|srt|sr|sp|st|se|spr|sip|sig|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid|sdd|ses|si")


def scheme(uri: str) -> str:
    """Return the scheme in lower case; local paths have "file"."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else "file"


def local_path(uri: str) -> str | None:
    """Return the path of a local file, as Python's `os` functions take it; None for what is remote."""
    match = _SCHEME.match(uri)
    if match is None:
        return os.fsdecode(uri.encode("utf-8", "surrogateescape"))
    if match[1].lower() != "file":
        return None
    return os.fsdecode(unquote_to_bytes(uri[match.end() :].removeprefix("localhost")))


def local_uri(path: str) -> str:
    """Return the URI of a local path."""
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "file://" + quote_from_bytes(os.path.abspath(raw))


def canonical(uri: str) -> str:
    """Return the one spelling that identifies a file: absolute path, no credentials, no signatures.

    Raises UnicodeEncodeError for text that no file can be called by (half a surrogate pair).
    """
    path = local_path(uri)
    if path is not None:
        return local_uri(os.path.abspath(path))
    if scheme(uri) in S3_SCHEMES:
        return "s3://" + "/".join(bucket_key(uri))
    rest = uri[len(scheme(uri)) + 3 :].partition("#")[0]
    address, _, query = rest.partition("?")
    host, slash, path = address.partition("/")
    parts = [part for part in query.split("&") if part]
    keys = {_key(part) for part in parts}
    kept = "&".join(part for part in parts if not _signs(_key(part), keys))
    return f"{scheme(uri)}://{host.rpartition('@')[2].lower()}{slash}{path}" + (f"?{kept}" if kept else "")


def join(base: str, *names: str) -> str:
    """Return the URI of `names` under the folder `base`."""
    path = local_path(base)
    return "/".join([base.rstrip("/"), *names]) if path is None else local_uri(os.path.join(path, *names))


def against(folder: str, uri: str) -> str:
    """Return `uri` as seen from `folder`: relative ones lie under it, `..` leads up inside the bucket."""
    if _SCHEME.match(uri) or uri.startswith("/"):
        return uri
    if scheme(folder) in S3_SCHEMES and {".", ".."} & set(uri.split("/")):
        bucket, key = bucket_key(folder)
        return f"s3://{bucket}" + posixpath.normpath(f"/{key}/{uri}")
    return join(folder, uri)


def bucket_key(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 URI, without credentials."""
    rest = re.sub(r"^[^/:@]+:[^@]*@", "", uri[len(scheme(uri)) + 3 :])
    bucket, _, key = rest.partition("/")
    return bucket, key


def _key(part: str) -> str:
    return part.partition("=")[0].lower()


def _signs(key: str, keys: set[str]) -> bool:
    if key.startswith(_SIGNING) or key in _SIGNERS_V2:
        return True
    if key in _SIGNING_V2:
        return not keys.isdisjoint(_SIGNERS_V2)
    return {"sig", "sv"} <= keys and _AZURE.fullmatch(key) is not None
