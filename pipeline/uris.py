"""URIs as text: the one spelling that identifies a file, and paths on this machine.

Duty: what a URI means, without looking whether anything is there. Knows no store.

A local file's URI is its absolute path, or, where the name is not valid UTF-8, a percent-encoded `file://` URI. The
keys of object stores stand in their URIs as they are, never percent-encoded; those of the web are percent-encoded.

A piece of a file has its name behind a `#`: `x.tar#member=a/b.wav`, `x.parquet#path=b.wav` or `#row=17`. What is no
plain letter, digit or sign in it is percent-encoded, so that whatever a tar calls its members is one harmless line.

Canonical URIs hold no secret. `address` is what opens a file whose URI was given with one: it must never be shown.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from urllib.parse import quote_from_bytes, unquote_to_bytes

S3_SCHEMES = ("s3", "s3a", "s3n")
GCS_SCHEMES = ("gs", "gcs")
AZURE_SCHEMES = ("az", "azure", "abfs", "abfss")
WEB_SCHEMES = ("http", "https")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# Query keys that sign a URL or carry credentials. The later two sets have everyday names, so they count only beside a
# key that proves what they are.
_SIGNING = ("x-amz-", "x-goog-")
_SIGNING_V2 = frozenset({"expires", "signature", "policy"})
_SIGNERS_V2 = frozenset({"awsaccesskeyid", "googleaccessid", "key-pair-id"})
_SAS = re.compile(r"sv|ss|srt|sr|sp|st|se|spr|sip|sig|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid|sdd|ses|si")
_PIECE = re.compile(r"(.+\.(?:tar|parquet))#(member|path|row)=([^&]*)((?:&nth=\d+)?)", re.IGNORECASE | re.DOTALL)
_KEYS = re.compile(r"^([^/:@]+):([^@]*)@")  # before the bucket
# In messages, where more is hidden than in identities. What stands alone before an "@" is a container's name on Azure.
_USER = re.compile(
    r"(?i)(\bhttps?://)[^/\s?#'\"<>]+@|(\bs3[an]?://)[^/\s:@]+:[^\s@'\"]+@|(\b[a-z][a-z0-9+.-]*://)[^/\s:@]+:[^\s@/'\"]+@"
)
_SECRET = re.compile(
    r"(?i)((?:x-amz-[\w-]*|x-goog-[\w-]*|\b(?:sig|signature|policy|awsaccesskeyid|googleaccessid|key-pair-id"
    r"|(?:access_?|auth_?)?token|jwt|api_?key|auth|password|secret|accountkey|sharedaccesssignature))(?:=|%3D))"
    r"[^&\s'\"<>);]+"
)


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
    base, piece = split_piece(uri)
    if piece:
        return canonical(base) + piece
    path = local_path(uri)
    if path is not None:
        return local_uri(os.path.abspath(path))
    if scheme(uri) in S3_SCHEMES:
        return "s3://" + "/".join(bucket_key(uri))
    if scheme(uri) in GCS_SCHEMES:
        return "gs://" + "/".join(bucket_key(uri))
    if scheme(uri) in AZURE_SCHEMES:
        host, container, key, _ = azure_parts(uri)
        return (f"abfss://{container}@{host}/" if host else f"az://{container}/") + key
    rest = uri[len(scheme(uri)) + 3 :].partition("#")[0]
    address, _, query = rest.partition("?")
    host, slash, path = address.partition("/")
    parts = [part for part in query.split("&") if part]
    keys = {_key(part) for part in parts}
    kept = "&".join(part for part in parts if not _signs(_key(part), keys))
    return f"{scheme(uri)}://{host.rpartition('@')[2].lower()}{slash}{path}" + (f"?{kept}" if kept else "")


def address(uri: str) -> str:
    """Return `uri` where the canonical one may not open it, because a secret is left out there; else nothing."""
    return "" if local_path(uri) is not None or canonical(uri) == uri else uri


def with_piece(uri: str, kind: str, name: str, nth: int = 1) -> str:
    """Return the URI of a piece of a file: its `member`, `path` or `row` of this name, the `nth` that is called so."""
    return f"{uri}#{kind}={_quoted(name)}" + (f"&nth={nth}" if nth > 1 else "")


def split_piece(uri: str) -> tuple[str, str]:
    """Part a URI into that of the file, and what says which piece of it, in its one spelling; "" for a whole file."""
    found = _PIECE.fullmatch(uri)
    if not found:
        return uri, ""
    base, kind, name, nth = found.groups()
    return base, f"#{kind.lower()}={_quoted(_unquoted(name))}{nth}"


def piece_name(uri: str) -> str | None:
    """Return what a tar or a table calls the piece that `uri` names; None where it names none."""
    found = _PIECE.fullmatch(uri)
    return _unquoted(found[3]) if found else None


def _quoted(name: str) -> str:
    return "".join(
        quote_from_bytes(c.encode("utf-8", "surrogateescape"), safe="")
        if c in '%#&?"<>\\' or unicodedata.category(c)[0] in "CZ"
        else c
        for c in name
    )


def _unquoted(name: str) -> str:
    return unquote_to_bytes(name).decode("utf-8", "surrogateescape")


def redacted(text: str) -> str:
    """Return a message without the credentials and signatures of the URLs in it."""
    return _SECRET.sub(r"\1...", _USER.sub(r"\1\2\3", text))


def join(base: str, *names: str) -> str:
    """Return the URI of `names` under the folder `base`, with the secrets of `base`."""
    path = local_path(base)
    if path is not None:
        return local_uri(os.path.join(path, *names))
    bare, secret = _split_secret(base)
    return "/".join([bare.rstrip("/"), *names]) + secret


def suffix(uri: str) -> str:
    """Return the ending of the file's name, such as `.mp3`, or nothing where it has none that is fit for a name."""
    found = re.search(r"\.[A-Za-z0-9]{1,10}$", re.split(r"[?#]", uri)[0] if scheme(uri) in WEB_SCHEMES else uri)
    return found[0] if found else ""


def as_folder(uri: str) -> str:
    """Return `uri` with a slash at its end, where it has a path."""
    bare, secret = _split_secret(uri)
    return bare + ("/" if not bare.endswith("/") else "") + secret


def lend(uri: str, owner: str) -> str:
    """Return `uri` with the secrets that `owner`, of the same store, carries for its whole bucket."""
    if scheme(owner) in S3_SCHEMES and (keys := s3_keys(owner)):
        return f"s3://{keys[0]}:{keys[1]}@" + "/".join(bucket_key(uri))
    return uri + _split_secret(owner)[1]


def parent(uri: str) -> str:
    """Return the folder that a file lies in, with the secrets that open its other files, too."""
    path = local_path(uri)
    if path is not None:
        return uri.rpartition("/")[0] or "/"
    bare, secret = _split_secret(uri)
    return bare.rpartition("/")[0] + secret


def against(folder: str, uri: str) -> str:
    """Return `uri` as seen from `folder`: relative ones lie under it, `..` leads up inside the bucket or site."""
    if _SCHEME.match(uri) or uri.startswith("/"):
        return uri
    if local_path(folder) is None and {".", ".."} & set(uri.split("/")):
        bare, secret = _split_secret(folder)
        root = re.match(r"[^:]+://(?:[^/:@]+:[^@]*@)?[^/]*", bare)
        assert root is not None
        return root[0] + posixpath.normpath(f"/{bare[root.end() :]}/{uri}").replace("//", "/", 1) + secret
    return join(folder, uri)


def bucket_key(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 or GCS URI, without credentials."""
    rest = _KEYS.sub("", uri[len(scheme(uri)) + 3 :])
    bucket, _, key = rest.partition("/")
    return bucket, key


def s3_keys(uri: str) -> tuple[str, str] | None:
    """Return the access key and its secret that stand in an S3 URI; None where it has none."""
    found = _KEYS.match(uri[len(scheme(uri)) + 3 :])
    return (found[1], found[2]) if found else None


def azure_parts(uri: str) -> tuple[str, str, str, str]:
    """Return account host (`ACCOUNT.dfs.DOMAIN`; empty where the URI names none), container, key, and SAS token."""
    bare, secret = _split_secret(uri)
    first, _, key = bare[len(scheme(uri)) + 3 :].partition("/")
    container, _, host = first.partition("@")
    account, dot, domain = host.lower().partition(".")
    domain = re.sub("^blob[.]", "dfs.", domain) if dot else "dfs.core.windows.net"
    return f"{account}.{domain}" if account else "", container, key, secret.removeprefix("?")


def _split_secret(uri: str) -> tuple[str, str]:
    """Part a URI from the query that follows it: a SAS token on Azure, everything on the web, nothing elsewhere."""
    if scheme(uri) in WEB_SCHEMES:
        return re.split(r"[?#]", uri, maxsplit=1)[0], ""
    if scheme(uri) in AZURE_SCHEMES:
        bare, mark, query = uri.rpartition("?")
        if mark and {"sig", "sv"} <= {_key(part) for part in query.split("&")}:
            return bare, mark + query
    return uri, ""


def _key(part: str) -> str:
    return part.partition("=")[0].lower()


def _signs(key: str, keys: set[str]) -> bool:
    if key.startswith(_SIGNING) or key in _SIGNERS_V2:
        return True
    if key in _SIGNING_V2:
        return not keys.isdisjoint(_SIGNERS_V2)
    return {"sig", "sv"} <= keys and _SAS.fullmatch(key) is not None
