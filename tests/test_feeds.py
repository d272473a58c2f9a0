"""Podcast feeds: enclosures are recordings, and what a feed can make us do is that and nothing more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from web_server import PASSWORD, SIGNATURE, USER, serving, web_server

from pipeline.errors import UserError
from pipeline.sources import Listing, resolve

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
ITUNES = 'xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd"'


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with web_server(EXAMPLES) as address:
        yield address


def item(url: str, more: str = "", kind: str = "audio/mpeg") -> str:
    return f'<item>{more}<enclosure url="{url}" type="{kind}" length="1"/></item>'


def rss(*items: str, before: str = "") -> str:
    head = f'<?xml version="1.0" encoding="UTF-8"?>{before}<rss version="2.0" {ITUNES}>'
    return f"{head}<channel><title>A show</title>{''.join(items)}</channel></rss>"


def link(href: str, rel: str = "next") -> str:
    """Return what RSS borrows from Atom for the addresses of further pages."""
    return f'<atom:link xmlns:atom="http://www.w3.org/2005/Atom" rel="{rel}" href="{href}"/>'


def listed(folder: Path, text: str, name: str = "feed.xml") -> Listing:
    (folder / name).write_text(text, encoding="utf-8")
    return resolve([str(folder / name)])


def metadata(listing: Listing) -> list[dict[str, object]]:
    return [json.loads(one.metadata) for one in listing.recordings]


def test_episodes_of_an_rss_feed_are_recordings(tmp_path: Path, web: str) -> None:
    said = "<title>Löwen &amp; more</title><guid>id-1</guid><pubDate>Tue, 05 Mar 2024 10:30:00 +0100</pubDate>"
    said += "<itunes:duration>1:02:03</itunes:duration>"
    listing = listed(
        tmp_path, rss(item(f"{web}/silence.wav", said), item(f"{web}/gone.mp3"), item(f"{web}/a.png", "", "image/png"))
    )
    assert [one.uri for one in listing.recordings] == [f"{web}/silence.wav", f"{web}/gone.mp3"]
    assert listing.recordings[0].size == (EXAMPLES / "silence.wav").stat().st_size
    assert metadata(listing) == [
        {
            "title": "Löwen & more",
            "date": "2024-03-05T09:30:00Z",
            "guid": "id-1",
            "duration": 3723.0,
            "feed": "A show",
        },
        {"feed": "A show"},
    ]
    assert listing.notes == ()


def test_episodes_of_an_atom_feed_are_recordings(tmp_path: Path, web: str) -> None:
    entry = f"""<entry><title>One</title><id>urn:1</id><updated>2024-01-02T03:04:05Z</updated>
        <link rel="alternate" href="https://example.org/1"/>
        <link rel="enclosure" type="audio/mpeg" href="{web}/silence.wav"/></entry>"""
    listing = listed(tmp_path, f'<feed xmlns="http://www.w3.org/2005/Atom"><title>T</title>{entry}</feed>', "x.atom")
    assert [one.uri for one in listing.recordings] == [f"{web}/silence.wav"]
    assert metadata(listing) == [{"title": "One", "date": "2024-01-02T03:04:05Z", "guid": "urn:1", "feed": "T"}]


def test_an_enclosure_that_does_not_say_what_it_is_is_a_recording(tmp_path: Path, web: str) -> None:
    silent = f'<link rel="enclosure" href="{web}/silence.wav"/>'
    enclosures = f'{silent}<link rel="enclosure" href="{web}/a.vtt" type="text/vtt"/>'
    listing = listed(tmp_path, f'<feed xmlns="http://www.w3.org/2005/Atom"><entry>{enclosures}</entry></feed>')
    assert [one.uri for one in listing.recordings] == [f"{web}/silence.wav"]


def test_an_enclosure_without_an_address_is_not_the_feed_itself(tmp_path: Path, web: str) -> None:
    (tmp_path / "feed").write_text(rss(item(""), item(f"{web}/silence.wav")))
    with web_server(tmp_path) as here:
        listing = resolve([f"{here}/feed"])
    assert [one.uri for one in listing.recordings] == [f"{web}/silence.wav"]


def test_a_feed_on_the_web_is_known_by_its_content(tmp_path: Path, web: str) -> None:
    (tmp_path / "feed").write_text(rss(item("sub/silence.wav"), item(f"{web}/silence.wav")))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "silence.wav").write_bytes((EXAMPLES / "silence.wav").read_bytes())
    (tmp_path / "stream").write_bytes((EXAMPLES / "music.mp3").read_bytes())
    with web_server(tmp_path) as here:
        listing = resolve([f"{here}/feed", f"{here}/stream"])
        assert [one.uri for one in listing.recordings] == [
            f"{here}/sub/silence.wav", f"{web}/silence.wav", f"{here}/stream"
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.xml", "a.rss"])
def test_what_is_no_feed_is_a_recording_by_its_name(tmp_path: Path, name: str) -> None:
    listing = listed(tmp_path, "<html><body>rss feed</body></html>", name)
    assert [one.uri for one in listing.recordings] == [str(tmp_path / name)]


@pytest.mark.parametrize(
    "url", ["/etc/passwd", "file:///etc/passwd", "s3://private/a.mp3", "gs://b/a", "secret.wav", "ftp://h/a"]
)
def test_a_feed_names_only_the_web(tmp_path: Path, web: str, url: str) -> None:
    (tmp_path / "secret.wav").write_bytes(b"x")
    listing = listed(tmp_path, rss(item(url), item(f"{web}/silence.wav")))
    assert [one.uri for one in listing.recordings] == [f"{web}/silence.wav"]
    assert "not on the web" in listing.notes[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_feed_that_declares_entities_is_refused(tmp_path: Path, web: str, encoding: str) -> None:
    (tmp_path / "private.txt").write_text("a secret of this machine")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 11))
    for declared, title in (
        (f'<!ENTITY l0 "ha">{laughs}', "&l10;"),
        (f'<!ENTITY q "{"x" * 5_000}">', "&q;" * 20_000),
        (f'<!ENTITY f SYSTEM "file://{tmp_path}/private.txt">', "&f;"),
        (f'<!ENTITY % p SYSTEM "{web}/evil.dtd"> %p;', "x"),
    ):
        before = f"<!DOCTYPE rss [{declared}]>"
        text = rss(item(f"{web}/silence.wav", f"<title>{title}</title>"), before=before)
        (tmp_path / "feed.xml").write_bytes(text.replace("UTF-8", encoding, 1).encode(encoding))
        with pytest.raises(UserError, match="declares entities"):
            resolve([str(tmp_path / "feed.xml")])


def test_entities_that_hide_in_another_encoding_neither_grow_nor_read_files(tmp_path: Path, web: str) -> None:
    (tmp_path / "private.txt").write_text("a secret of this machine")
    for declared, title in (
        (f'<!ENTITY q "{"x" * 100_000}">', "&q;" * 2_000),
        (f'<!ENTITY f SYSTEM "file://{tmp_path}/private.txt">', "&f;"),
    ):
        text = rss(item(f"{web}/silence.wav", f"<title>{title}</title>"), before=f"<!DOCTYPE rss [{declared}]>")
        data = text.replace('"UTF-8"', '"utf-7"', 1).encode("ascii").replace(b"<!ENTITY", b"+ADw-!ENTITY")
        (tmp_path / "feed.xml").write_bytes(data)
        try:
            said = json.dumps(metadata(resolve([str(tmp_path / "feed.xml")])))
        except UserError:
            continue
        assert "secret" not in said
        assert len(said) < 200_000


def test_a_broken_feed_gives_what_can_be_read_and_says_so(tmp_path: Path, web: str) -> None:
    text = rss(item(f"{web}/silence.wav", "<title>A &nbsp; B & C</title>"), item(f"{web}/music.mp3"))
    listing = listed(tmp_path, text[: text.rindex("</item>")])
    assert [one.uri for one in listing.recordings] == [f"{web}/silence.wav", f"{web}/music.mp3"]
    assert "is no whole XML" in listing.notes[0]


def test_a_feed_without_episodes_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no audio or video"):
        listed(tmp_path, rss())


def test_secrets_of_a_feed_open_it_and_are_not_kept(tmp_path: Path) -> None:
    with web_server(tmp_path, closed=True) as closed:
        signed = f"{closed}/silence.wav?X-Amz-Signature={SIGNATURE}"
        said = f"<guid>{signed}</guid><title>by {USER}:x at {signed.replace('://', f'://{USER}:{PASSWORD}@')}</title>"
        (tmp_path / "feed").write_text(rss(item(signed, said)))
        (tmp_path / "silence.wav").write_bytes((EXAMPLES / "silence.wav").read_bytes())
        (recording,) = resolve([f"{closed.replace('://', f'://{USER}:{PASSWORD}@')}/feed"]).recordings
    assert recording.uri == f"{closed}/silence.wav"
    assert recording.size
    assert SIGNATURE in recording.location
    for secret in (SIGNATURE, PASSWORD):
        assert secret not in recording.uri + recording.metadata + repr(recording)


# --- pages: a feed of more than one --------------------------------------------------------------------------------


def test_all_pages_of_a_feed_are_read(tmp_path: Path, web: str) -> None:
    (tmp_path / "feed").write_text(rss(link("feed", "self"), link("pages/2"), item(f"{web}/silence.wav")))
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "2").write_text(rss(link("../feed", "previous"), item("far.mp3"), link("3?signed=no")))
    entries = {"Old": "music.mp3", "Again": "silence.wav"}
    atom = "".join(
        f'<entry><title>{title}</title><link rel="enclosure" href="{web}/{name}"/></entry>'
        for title, name in entries.items()
    )
    (tmp_path / "pages" / "3").write_text(f'<feed xmlns="http://www.w3.org/2005/Atom"><title>A</title>{atom}</feed>')
    with web_server(tmp_path) as here:
        listing = resolve([f"{here}/feed"])
        assert [one.uri for one in listing.recordings] == [
            f"{web}/silence.wav", f"{here}/pages/far.mp3", f"{web}/music.mp3"
        ]  # fmt: skip
    assert listing.doubles == 1
    assert listing.notes == ()
    assert metadata(listing)[2] == {"title": "Old", "feed": "A"}


def test_a_feed_and_its_archive_are_read(tmp_path: Path, web: str) -> None:
    (tmp_path / "old").write_text(rss(item(f"{web}/music.mp3"), link("new", "current")))
    with web_server(tmp_path) as here:
        listing = listed(tmp_path, rss(item(f"{web}/silence.wav"), link(f"{here}/old", "prev-archive")))
    assert [one.uri for one in listing.recordings] == [f"{web}/silence.wav", f"{web}/music.mp3"]


@pytest.mark.parametrize("back", ["1", "2", "/1?X-Amz-Signature=new"])
def test_pages_that_lead_in_a_circle_are_read_once(tmp_path: Path, web: str, back: str) -> None:
    (tmp_path / "1").write_text(rss(item(f"{web}/silence.wav"), link("2")))
    (tmp_path / "2").write_text(rss(item(f"{web}/music.mp3"), link(back)))
    with web_server(tmp_path) as here:
        listing = resolve([f"{here}/1"])
    assert [one.uri for one in listing.recordings] == [f"{web}/silence.wav", f"{web}/music.mp3"]
    assert listing.doubles == 0
    assert listing.notes == (
        f"{here}/2 names as its next page one that was read before; the feed is taken to end there",
    )


def test_a_feed_without_end_is_left_after_so_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.feeds._PAGES", 20)
    with endless_feed() as (here, asked):
        listing = resolve([f"{here}/0"])
    assert [one.uri for one in listing.recordings] == [f"{here}/{number}.mp3" for number in range(20)]
    assert listing.notes == (f"{here}/0 has more than 20 pages; those behind are left out",)
    assert "/20" not in asked


@contextmanager
def endless_feed() -> Iterator[tuple[str, list[str]]]:
    """Serve a feed whose every page names another; yield its address and what was asked for."""
    asked: list[str] = []

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            name = self.path[1:]
            page = rss(item(f"{name}.mp3"), link(str(int(name) + 1))).encode() if name.isdecimal() else b""
            self.send_response(200 if page else 404)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            return

    with serving(Endless) as here:
        yield here, asked


@pytest.mark.parametrize("url", ["/etc/passwd", "file:///etc/passwd", "s3://private/feed", "more.xml", "ftp://h/feed"])
def test_a_feed_has_pages_on_the_web_alone(tmp_path: Path, web: str, url: str) -> None:
    (tmp_path / "more.xml").write_text(rss(item(f"{web}/music.mp3")))
    listing = listed(tmp_path, rss(item(f"{web}/silence.wav"), link(url)))
    assert [one.uri for one in listing.recordings] == [f"{web}/silence.wav"]
    assert "next page that is not on the web" in listing.notes[0]


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (None, r"cannot read the feed .*/2: .*\(404\)"),
        ("<html><body>log in</body></html>", "/2 is no feed"),
        (rss(before='<!DOCTYPE rss [<!ENTITY a "b">]>'), "/2 declares entities"),
        (rss("x" * 70_000), "/2 has more than 0 MiB"),
    ],
)
def test_a_page_is_held_to_what_the_first_is(
    tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch, page: str | None, words: str
) -> None:
    monkeypatch.setattr("pipeline.feeds._LARGEST", 60_000)
    (tmp_path / "1").write_text(rss(item(f"{web}/silence.wav"), link("2")))
    if page is not None:
        (tmp_path / "2").write_text(page)
    with web_server(tmp_path) as here, pytest.raises(UserError, match=words):
        resolve([f"{here}/1"])


@pytest.mark.parametrize("url", ["http://[::1/2", "http://host.invalid:port/2"])
def test_a_next_page_whose_address_is_none_is_the_users_error(tmp_path: Path, web: str, url: str) -> None:
    (tmp_path / "1").write_text(rss(item(f"{web}/silence.wav"), link(url)))
    with web_server(tmp_path) as here, pytest.raises(UserError, match="cannot read the feed"):
        resolve([f"{here}/1"])


def test_a_password_opens_the_pages_of_its_server_and_no_other(tmp_path: Path, web: str) -> None:
    heard: list[str | None] = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization"))
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            return

    with web_server(tmp_path, closed=True) as closed, serving(Listening) as other:
        (tmp_path / "1").write_text(rss(item(f"{web}/silence.wav"), link(f"{closed}/2")))
        (tmp_path / "2").write_text(rss(item(f"{web}/music.mp3"), link(f"{other}/3")))
        with pytest.raises(UserError, match=f"{other}/3") as caught:
            resolve([f"{closed.replace('://', f'://{USER}:{PASSWORD}@')}/1"])
    assert PASSWORD not in str(caught.value)
    assert heard == [None]
