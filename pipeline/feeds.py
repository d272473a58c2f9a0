"""Podcast feeds (RSS 2.0, Atom) -> Lines: an enclosure each, with what the feed says of its episode.

Duty: know a feed by its first bytes, and read it. feedparser does the reading: it takes feeds as they are found, broken
ones too. A feed that declares entities is refused: none needs them, and they can multiply, or name files. (feedparser
asks for no external ones, and behind it stands expat's limit on their growth.) Only enclosures on the web are taken: a
feed must not name files of this machine or objects that only our credentials open. Knows nothing of what the URLs
point to.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

from pipeline import storage
from pipeline.errors import OpenError, UserError
from pipeline.manifests import Line, as_json
from pipeline.storage import Entry

FEEDS = (".xml", ".rss", ".atom")
_HEAD = 16 << 10  # bytes in which a feed says what it is
_LARGEST = 64 << 20  # bytes of a feed
_ROOT = re.compile(r"<(?:rss|feed|rdf:RDF)[\s>]")
_OTHERS = re.compile(r"(?:image|text)/|application/(?:pdf|x-bittorrent|json|xml)", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


def is_feed(entry: Entry) -> bool:
    """Say whether a file is a feed by what it begins with. What cannot be read is none."""
    try:
        with storage.open_audio(entry.location, entry.version, ahead=_HEAD) as stream:
            head = stream.read(_HEAD)
    except OpenError:
        return False
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace").lstrip()
    return text.startswith("<") and _ROOT.search(text) is not None


def read_feed(entry: Entry, notes: list[str]) -> Iterator[Line]:
    """Yield a line for each enclosure, and add to `notes` what was odd. Raises UserError where it cannot be read."""
    import feedparser

    # As a stream: text or bytes it would take for the name of a file or an address, if they look so
    feed = feedparser.parse(io.BytesIO(_bytes(entry)), sanitize_html=False, resolve_relative_uris=False)
    if feed.bozo:
        notes.append(f"{entry.uri} is no whole XML ({feed.bozo_exception}); what could be read of it is taken")
    number = elsewhere = 0
    for episode in feed.entries:
        for enclosure in episode.get("enclosures", ()):
            uri = urljoin(entry.uri if storage.scheme(entry.uri) != "file" else "", enclosure.get("href", "").strip())
            if _OTHERS.match(enclosure.get("type") or ""):
                continue
            if storage.scheme(uri) not in ("http", "https") or not uri.isprintable():
                elsewhere += 1
                continue
            number += 1
            yield Line(number, uri, None, None, as_json(_said(episode, feed.feed)))
    if elsewhere:
        notes.append(f"{entry.uri} has {elsewhere} enclosures that are not on the web; they are left out")


def _bytes(entry: Entry) -> bytes:
    found = bytearray()
    try:
        with storage.open_audio(entry.location, entry.version) as stream:
            while (piece := stream.read(1 << 20)) and len(found) <= _LARGEST:
                found += piece
    except OpenError as error:
        raise UserError(f"cannot read the feed {entry.uri}: {error}") from error
    if len(found) > _LARGEST:
        raise UserError(f"the feed {entry.uri} has more than {_LARGEST >> 20} MiB", "name its episodes in a manifest")
    if b"<!ENTITY" in found.replace(b"\0", b""):  # in UTF-16, too
        raise UserError(f"the feed {entry.uri} declares entities of XML", "name its episodes in a manifest")
    return bytes(found)


def _said(episode: Any, feed: Any) -> dict[str, Any]:
    """Return what the feed says of an episode. Addresses lose their secrets."""
    said = {
        "title": episode.get("title"),
        "date": _date(episode),
        "guid": episode.get("id"),
        "duration": _seconds(episode.get("itunes_duration")),
        "feed": feed.get("title"),
    }
    return {
        name: storage.redacted(value) if isinstance(value, str) else value
        for name, value in said.items()
        if value not in (None, "")
    }


def _date(episode: Any) -> str | None:
    """Return the date in UTC as ISO 8601 writes it; one that is none as it stands."""
    when = episode.get("published_parsed") or episode.get("updated_parsed")
    if when is None:
        return episode.get("published") or None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", when)


def _seconds(text: str | None) -> float | str | None:
    """Return a length in seconds: `1:02:03`, `62:03` or `3723`; one that is none as it stands."""
    if not text:
        return None
    if found := _CLOCK.fullmatch(text.strip()):
        hours, minutes, seconds = found.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
    return float(text) if text.strip().isdecimal() else text
