"""Podcast feeds: enclosures are recordings, and what a feed can make us do is that and nothing more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import PASSWORD, SIGNATURE, USER, web_server

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
