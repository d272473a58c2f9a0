"""Podcast feeds (RSS 2.0, Atom) -> Lines: an enclosure each, with what the feed says of its episode.

Duty: know a feed by its first bytes, and read it, all its pages (RFC 5005). feedparser does the reading: it takes feeds
as they are found, broken ones too. A page that declares entities is refused: none needs them, and they can multiply, or
name files. (feedparser asks for no external ones, and behind it stands expat's limit on their growth.) Only enclosures
and pages on the web are taken: a feed must not name files of this machine or objects that only our credentials open.
Knows nothing of what the URLs of enclosures point to.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

from pipeline import storage
from pipeline.errors import OpenError, UserError
from pipeline.manifests import Line, as_json
from pipeline.storage import Entry

FEEDS = (".xml", ".rss", ".atom")
_HEAD = 16 << 10  # bytes in which a feed says what it is
_LARGEST = 64 << 20  # bytes of a page
_PAGES = 1000  # of a feed: what has no end must end
_ONWARD = ("next", "prev-archive")  # links to older episodes: of pages, and of a feed's archive
_HINT = "name its episodes in a manifest"
_ROOT = re.compile(r"<(?:rss|feed|rdf:RDF)[\s>]")
# feedparser says text/html of links in Atom that say nothing of themselves
_OTHERS = re.compile(r"image/|text/(?!html)|application/(?:pdf|x-bittorrent|json|xml)", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


def is_feed(entry: Entry) -> bool:
    """Say whether a file is a feed by what it begins with. What cannot be read is none."""
    try:
        with storage.open_audio(entry.location, entry.version, ahead=_HEAD) as stream:
            return _begins_one(stream.read(_HEAD))
    except OpenError:
        return False


def read_feed(entry: Entry, notes: list[str]) -> Iterator[Line]:
    """Yield a line for each enclosure of each page, and add to `notes` what was odd.

    Raises UserError where a page cannot be read: what it names would be missing without a word.
    """
    number = elsewhere = 0
    for page, feed in _pages(entry, notes):
        for episode in feed.entries:
            for enclosure in episode.get("enclosures", ()):
                if _OTHERS.match(enclosure.get("type") or ""):
                    continue
                uri = _on_the_web(page, enclosure.get("href"))
                if uri is None:
                    elsewhere += 1
                    continue
                number += 1
                yield Line(number, uri, None, None, as_json(_said(episode, feed.feed)))
    if elsewhere:
        notes.append(f"{entry.uri} has {elsewhere} enclosures that are not on the web; they are left out")


def _pages(entry: Entry, notes: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the canonical URI of each page of a feed, and what feedparser makes of it."""
    import feedparser

    location, version, read = entry.location, entry.version, set[str]()
    while len(read) < _PAGES:
        page = storage.canonical(location)
        read.add(page)
        # As a stream: text or bytes it would take for the name of a file or an address, if they look so
        data = io.BytesIO(_bytes(location, version))
        feed = feedparser.parse(data, sanitize_html=False, resolve_relative_uris=False)
        if feed.bozo:
            notes.append(f"{page} is no whole XML ({feed.bozo_exception}); what could be read of it is taken")
        yield page, feed
        onward = _onward(feed)
        if onward is None:
            return
        following = _on_the_web(page, onward)
        if following is None:
            notes.append(f"{page} names a next page that is not on the web; it is not followed")
            return
        if storage.canonical(following) in read:
            notes.append(f"{page} names as its next page one that was read before; the feed is taken to end there")
            return
        location, version = _opened_by(location, following), ""
    notes.append(f"{entry.uri} has more than {_PAGES} pages; those behind are left out")


def _onward(feed: Any) -> str | None:
    """Return the link to the page with older episodes."""
    links = {link.get("rel"): link.get("href") for link in reversed(feed.feed.get("links", ()))}
    return next((links[rel] for rel in _ONWARD if links.get(rel)), None)


def _on_the_web(page: str, link: str | None) -> str | None:
    """Return the address that a link on a page means; None where it lies elsewhere."""
    uri = (link or "").strip()
    with suppress(ValueError):  # brackets that hold no address: who opens it will say so
        uri = urljoin(page if storage.scheme(page) != "file" else "", uri)
    return uri if link and storage.scheme(uri) in ("http", "https") and uri.isprintable() else None


def _opened_by(location: str, page: str) -> str:
    """Return the address of a page with the password that the one before was opened with, on the same server only."""
    try:
        before, after = urlsplit(location), urlsplit(page)
    except ValueError:
        return page
    user, at, host = before.netloc.rpartition("@")
    if not at or "@" in after.netloc or (after.scheme, after.netloc.lower()) != (before.scheme, host.lower()):
        return page
    return after._replace(netloc=f"{user}@{after.netloc}").geturl()


def _begins_one(head: bytes) -> bool:
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace").lstrip()
    return text.startswith("<") and _ROOT.search(text) is not None


def _bytes(location: str, version: str) -> bytes:
    found, page = bytearray(), storage.canonical(location)
    try:
        with storage.open_audio(location, version) as stream:
            while (piece := stream.read(1 << 20)) and len(found) <= _LARGEST:
                found += piece
    except OpenError as error:
        hint = f"run the same command again later, or {_HINT}" if error.retryable else _HINT
        raise UserError(f"cannot read the feed {page}: {error}", hint) from error
    if len(found) > _LARGEST:
        raise UserError(f"the feed {page} has more than {_LARGEST >> 20} MiB", _HINT)
    if b"<!ENTITY" in found.replace(b"\0", b""):  # in UTF-16, too
        raise UserError(f"the feed {page} declares entities of XML", _HINT)
    if not _begins_one(bytes(found[:_HEAD])):
        raise UserError(f"{page} is no feed, though another page of the feed names it as its next", _HINT)
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
