"""`bulkscribe report`: what its page tells, that no table can harm it, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import json
import random
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browsers import Browser, Page, browser
from click.testing import CliRunner, Result
from outputs import FAILURE, finished, segment, write_output, write_part

from jobs import main
from pipeline import digest as digests
from pipeline.decode import Decoder
from pipeline.picks import PickOptions
from pipeline.reviews import opinion_rows, review_rows
from pipeline.sources import resolve
from pipeline.types import SAMPLE_RATE, Attempt, Failure, Finished, Opinion, Recording, Review, Segment, Span

AUDIO = Path(__file__).parents[1] / "examples" / "audio"
HOSTILE = "/radio/<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">.mp3"
TEXTS = {
    "en": "And that is what the committee said yesterday.",
    "de": "Und das hat der Ausschuss gestern gesagt.",
    "ar": "وهذا ما قالته اللجنة أمس.",
    "zh": "这就是委员会昨天所说的话。",
}


def report(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, args)])


def told(*args: str | Path) -> dict[str, Any]:
    """Return the JSON line of a run that must go well."""
    result = report(*args)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def spoken(rng: random.Random, start: float, language: str) -> Segment:
    """Return a segment with scores by chance; a third of them have flags."""
    flags = rng.choice([(), (), (), ("low_logprob",), ("repetitive", "no_speech"), ("fallback_exhausted",)])
    temperatures = (0.0, 0.2, 0.4)[: rng.randint(1, 3)]
    one = segment(start, start + rng.uniform(1, 9), TEXTS[language], *flags, language=language)
    return replace(
        one,
        avg_logprob=-rng.lognormvariate(-1.2, 0.6),
        compression_ratio=rng.gauss(1.5, 0.3),
        no_speech_prob=rng.betavariate(0.4, 3),
        evidence_per_token=rng.gauss(3, 1),
        attempts=tuple(Attempt(t, -0.5, 1.5) for t in temperatures),
    )


def item(rng: random.Random, number: int, uri: str) -> Finished:
    """Return a recording of a minute or two, with a pause in its middle."""
    language = rng.choice([*TEXTS, "en", "en"])
    starts = [*range(0, 50, 10), *range(70, 70 + 10 * rng.randint(1, 9), 10)]
    one = finished(f"{number:04x}", uri, *(spoken(rng, start, language) for start in starts))
    duration = (starts[-1] + 12) * SAMPLE_RATE
    pause = Span(52 * SAMPLE_RATE, 68 * SAMPLE_RATE)
    outcome = replace(one.outcome, duration=duration, speech=duration - len(pause), speechless=(pause,))
    return replace(one, outcome=outcome, language=language)


def of(recording: Recording) -> Finished:
    """Return a recording that begins as `fr_standard.m4a` does."""
    said = segment(0, 2.3, "Tous nos postes sont occupés.", "quiet", language="fr")
    one = finished(recording.id, recording.uri, said)
    return replace(one, outcome=replace(one.outcome, recording=recording))


def write_opinions(out: Path, part: str, *reviews: Review) -> None:
    """Write what a second model said, of transcripts or of what stood there before them."""
    for folder in ("opinions", "reviews"):
        (out / folder).mkdir(exist_ok=True)
    pq.write_table(opinion_rows(reviews), out / "opinions" / part)
    table = review_rows(reviews, part=part, model="tiny<b>", config_hash="c0ffee", run_id="run2")
    pq.write_table(table, out / "reviews" / part)


def opinion(index: int, words: int | None, wer: float | None, edge_cer: float | None, *reasons: str) -> Opinion:
    span = Span(0, 5 * SAMPLE_RATE)
    return Opinion(index, reasons, span, "Something.", "en", words=words, wer=wer, edge_cer=edge_cer)


def judged(one: Finished, transcript: str, *opinions: Opinion) -> Review:
    """Return the second opinions on a recording, of which 5 s were heard again and one more segment is doubtful."""
    outcome = replace(one.outcome, duration=5 * SAMPLE_RATE)
    return Review(outcome, opinions, one.outcome.duration, len(opinions) + 1, transcript)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of two parts: languages, flags, failures, a real recording, hostile names and texts."""
    folder, rng = tmp_path_factory.mktemp("report") / "out", random.Random(0)
    (there,) = resolve([str(AUDIO / "fr_standard.m4a")]).recordings
    real = of(replace(there, id="aaaa"))
    hostile = segment(0, 9, "</p><script>document.title='taken'</script>", "<b>flag</b>", language="en")
    write_part(folder, "part-0001.parquet", [real, *(item(rng, n, f"/radio/2024/show-{n}.mp3") for n in range(20))])
    failed = [
        finished("ffff", "/radio/broken.m4a", failure=FAILURE),
        finished("fffe", "s3://radio/gone.mp3", failure=Failure("open", "unavailable", "<i>slow</i> down", True)),
        finished("fffd", HOSTILE, hostile),
    ]
    same, apart = opinion(0, 4, 0.0, 0.0, "flag"), opinion(3, 6, 0.5, 0.25, "flag", "logprob")
    wordless, old = opinion(4, None, None, None, "logprob"), opinion(0, 100, 1.0, 1.0, "fallback")
    write_opinions(folder, "part-0001.parquet", judged(real, "run1", same, apart, wordless))
    write_opinions(folder, "part-0002.parquet", judged(failed[2], "run0", old))  # it was transcribed anew since
    write_part(
        folder, "part-0002.parquet", [*failed, *(item(rng, n, f"/radio/2025/show-{n}.mp3") for n in range(20, 40))]
    )
    return folder


@pytest.fixture(scope="module")
def page_path(out: Path) -> Path:
    told(out, "--audio")
    return out / "report.html"


class Reader(HTMLParser):
    """Collects what a page could load or run, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def reader(page_path: Path) -> Reader:
    return Reader(page_path.read_text(encoding="utf-8"))


def test_counts_are_one_json_line(out: Path, tmp_path: Path) -> None:
    found = told(out, "--to", tmp_path / "x.html")
    assert (found["recordings"], found["failed"], found["to"]) == (44, 2, str(tmp_path / "x.html"))
    assert 0 < found["kept_hours"] < found["audio_hours"]
    assert 0 < found["flagged_segments"] < found["segments"]


def test_hours_by_reason_add_up_to_all_audio(out: Path) -> None:
    found = digests.digest(str(out), PickOptions())
    reasons = found.by_reason()
    assert list(reasons)[-1] == "kept"
    assert sum(reasons.values()) - found.failed_s == pytest.approx(found.duration_s)
    assert reasons["speechless"] == pytest.approx(40 * 16)
    assert {"low_logprob", "repetitive", "fallback_exhausted", "<b>flag</b>"} <= reasons.keys()
    assert "no_speech" not in reasons  # stands behind `repetitive` in each of its segments
    assert found.flag_s["no_speech"] == pytest.approx(found.flag_s["repetitive"])


def test_time_of_failed_recordings_is_estimated_by_their_size(tmp_path: Path) -> None:
    read, failed = finished("a", "/x.mp3"), finished("b", "/y.mp3", failure=FAILURE)
    write_part(tmp_path, "part-1.parquet", [read, failed, replace(failed, outcome=replace(failed.outcome))])
    assert digests.digest(str(tmp_path), PickOptions()).failed_s == pytest.approx(
        20.0
    )  # of 1000 bytes each, as 10 s are


def test_histograms_count_each_segment_once(out: Path) -> None:
    found = digests.digest(str(out), PickOptions())
    by_name = {one.score.name: one for one in found.histograms}
    assert "hallucination_probability" not in by_name  # there are none
    counted = by_name["avg_logprob"].flagged.sum(), by_name["avg_logprob"].unflagged.sum()
    assert counted == (found.flagged_segments, found.segments - found.flagged_segments)


def test_slowest_are_those_decoded_again_most_often(tmp_path: Path) -> None:
    calm = segment(0, 10, "One.")
    again = replace(calm, attempts=tuple(Attempt(t, -1.5, 1.5) for t in (0.0, 0.2, 0.4)))
    halves = [replace(again, end=again.end // 2), replace(again, start=again.end // 2)]  # of one window: counted once
    items = [finished("a", "/calm.mp3", calm), finished("b", "/slow.mp3", *halves)]
    write_part(tmp_path, "part-1.parquet", items)
    slowest = digests.digest(str(tmp_path), PickOptions()).picks.slowest
    assert slowest[["uri", "decodings"]].to_dict("split")["data"] == [["/slow.mp3", 3], ["/calm.mp3", 1]]


def test_worst_come_from_all_parts_and_are_as_many_as_asked_for(out: Path) -> None:
    worst = digests.digest(str(out), PickOptions(worst=7)).picks.worst
    assert len(worst) == 7
    assert worst["flagged_share"].is_monotonic_decreasing
    assert worst.iloc[0]["uri"] == HOSTILE  # all of it is flagged


def test_second_opinions_on_what_stands_there_now_are_told(out: Path, reader: Reader) -> None:
    found = digests.digest(str(out), PickOptions()).opinions
    assert found is not None
    assert (found.recordings, found.outdated, found.doubtful, found.heard_s) == (1, 1, 4, 5.0)
    assert (found.all.asked, found.all.compared, found.all.agreed) == (3, 2, 1)
    assert (found.all.wer, found.all.edge_cer) == (pytest.approx(3 / 10), pytest.approx(0.125))
    assert {reason: one.asked for reason, one in found.by_reason.items()} == {"flag": 2, "logprob": 2}
    assert found.by_reason["logprob"].wer == pytest.approx(0.5)
    said = "3 of 4 doubtful segments were transcribed again by tiny<b>, from 5.0 s of audio. Not counted"
    assert said in reader.text
    markdown = report(out, "--format", "md").stdout
    assert "| all | 3 | 50.0 % | 30.0 % | 12.5 % |" in markdown
    assert "| logprob | 2 | 0.0 % | 50.0 % | 25.0 % |" in markdown


def test_output_without_second_opinions_tells_nothing_of_them(tmp_path: Path) -> None:
    told(write_output(tmp_path))
    assert "econd opinion" not in (tmp_path / "report.html").read_text("utf-8")
    assert "econd opinion" not in report(tmp_path, "--format", "md").stdout


def test_hostile_names_and_texts_are_text(reader: Reader) -> None:
    assert HOSTILE in reader.text
    assert "</p><script>document.title='taken'</script>" in reader.text
    assert "<i>slow</i> down" in reader.text
    assert "<b>flag</b>" in reader.text
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert not {"img", "iframe", "object", "link", "b", "i"} & {tag for tag, _ in reader.tags}


def test_nothing_is_loaded_from_anywhere(reader: Reader) -> None:
    for _, attributes in reader.tags:
        for name in ("src", "href", "xlink:href", "poster", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
    (policy,) = (a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")


def test_sound_of_samples_is_in_the_page_and_bounded(out: Path, reader: Reader, tmp_path: Path) -> None:
    (clip,) = (a["src"] for tag, a in reader.tags if tag == "audio")  # of the only recording that is there
    assert clip is not None
    path = tmp_path / "clip.mp3"
    path.write_bytes(base64.b64decode(clip.removeprefix("data:audio/mpeg;base64,")))
    pcm = [block for block in Decoder(lambda: path.open("rb"), str(path)).blocks()]
    assert sum(map(len, pcm)) / SAMPLE_RATE == pytest.approx(2.3, abs=0.15)
    assert "no audio: No such file or directory" in reader.text
    told(out, "--audio", "--audio-max-s", "0.5", "--to", tmp_path / "short.html")
    shorter = re.search(r"data:audio/mpeg;base64,[^\"]+", (tmp_path / "short.html").read_text("utf-8"))
    assert shorter is not None
    assert len(shorter[0]) < len(clip) / 2
    told(out, "--to", tmp_path / "silent.html")
    assert "<audio" not in (tmp_path / "silent.html").read_text("utf-8")


def test_recordings_inside_of_files_sound_like_files(tmp_path: Path) -> None:
    name, data = "fr_standard.m4a", (AUDIO / "fr_standard.m4a").read_bytes()
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(AUDIO / "music.mp3", "first.mp3")
        tar.add(AUDIO / name, name)
    pq.write_table(
        pa.table({"audio": [{"bytes": b"", "path": "x.wav"}, {"bytes": data, "path": name}]}), tmp_path / "all.parquet"
    )
    sources = AUDIO / name, tmp_path / "all.tar", tmp_path / "all.parquet"
    found = [resolve([str(source)]).recordings[-1] for source in sources]
    changed = replace(found[1], id="changed", version="0")
    write_part(tmp_path / "out", "part-1.parquet", [of(one) for one in (*found, changed)])
    told(tmp_path / "out", "--audio")
    page = Reader((tmp_path / "out" / "report.html").read_text("utf-8"))
    sounds = [attributes["src"] for tag, attributes in page.tags if tag == "audio"]
    assert len(sounds) == 3
    assert len(set(sounds)) == 1
    assert "no audio: it has changed since it was transcribed" in page.text


def test_markdown_goes_to_stdout_and_stays_in_its_cells(out: Path) -> None:
    result = report(out, "--format", "md")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        f"# {str(out).replace('_', chr(92) + '_')}\n\n- recordings: 44 (42 ok, 0 partial, 2 failed)\n"
    )
    assert "| open: unavailable | 1 | 1 | s3://radio/gone.mp3: \\<i\\>slow\\</i\\> down |" in result.stdout
    tables = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert re.search(r"(?<!\\)<", result.stdout) is None
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} <= {4, 5, 6}


def test_output_without_text_has_a_page_all_the_same(tmp_path: Path) -> None:
    write_part(tmp_path, "part-1.parquet", [finished("a", "/a.mp3", failure=FAILURE), finished("b", "/silent.wav")])
    assert told(tmp_path)["segments"] == 0
    write_part(tmp_path / "all", "part-1.parquet", [finished("a", "/a.mp3", failure=FAILURE)])
    assert told(tmp_path / "all")["failed"] == 1


def test_small_output_of_two_parts(tmp_path: Path) -> None:
    assert told(write_output(tmp_path))["flagged_segments"] == 1


def test_folder_without_transcripts_is_refused(tmp_path: Path) -> None:
    result = report(tmp_path / "nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: there are no transcripts in")


# --- in a browser ---------------------------------------------------------------------------------------------------

VIEWS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def opened(chromium: Browser, page_path: Path) -> Iterator[Page]:
    """The page on a phone in the dark, whose owner wants no motion; what it asks for and says is noted on it."""
    page = chromium.new_page(
        viewport={"width": 390, "height": 844}, color_scheme="dark", reduced_motion="reduce", java_script_enabled=True
    )
    page.asked, page.said = [], []  # type: ignore[attr-defined]
    page.on("request", lambda request: page.asked.append(request.url))  # type: ignore[attr-defined]
    page.on("console", lambda message: page.said.append(message.text))  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.said.append(str(error)))  # type: ignore[attr-defined]
    page.goto(page_path.as_uri())
    yield page
    page.close()


def test_browser_asks_for_the_page_alone_and_finds_no_fault(opened: Page, page_path: Path) -> None:
    opened.wait_for_load_state("networkidle")
    assert [url for url in opened.asked if not url.startswith("data:")] == [page_path.as_uri()]  # type: ignore[attr-defined]
    assert opened.said == []  # type: ignore[attr-defined]
    assert opened.title().startswith("Report of ")  # no name and no text of a table has run as a script


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_page_fits_its_window_and_follows_the_scheme(opened: Page, width: int, scheme: Any) -> None:
    opened.set_viewport_size({"width": width, "height": 844})
    opened.emulate_media(color_scheme=scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    paper, ink = opened.evaluate(
        """() => ["backgroundColor", "color"].map((name) =>
            getComputedStyle(document.body)[name].match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3)"""
    )
    assert (paper > ink) == (scheme == "light")
    fill = opened.evaluate("getComputedStyle(document.querySelector('#scores svg path[fill^=\\'var(--kept)\\']')).fill")
    assert fill == {"light": "rgb(31, 138, 112)", "dark": "rgb(63, 183, 151)"}[scheme]  # charts do so, too


@pytest.mark.parametrize("width", [width for width, scheme in VIEWS if scheme == "dark"])
def test_words_in_charts_are_not_cut_off(opened: Page, width: int) -> None:
    """The page's font may be wider than the one that the charts were laid out with."""
    opened.set_viewport_size({"width": width, "height": 844})
    cut = opened.evaluate(
        """() => [...document.querySelectorAll("svg text")].filter((text) => {
            const svg = text.closest("svg"), word = text.getBoundingClientRect()
            const shown = getComputedStyle(svg).overflow === "visible" ? svg.closest("section") : svg
            const seen = shown.getBoundingClientRect()
            return word.width && (word.left < seen.left || word.right > seen.right)
        }).map((text) => text.textContent)"""
    )
    assert cut == []


@pytest.mark.parametrize(("width", "scheme"), [VIEWS[1], VIEWS[2]])
def test_axe_finds_nothing_that_keeps_people_out(opened: Page, width: int, scheme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened.set_viewport_size({"width": width, "height": 844})
    opened.emulate_media(color_scheme=scheme)
    opened.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    # The engine of axe is evaluated by the browser's own debugger, which the page's policy does not bind.
    found = Axe().run(opened)
    assert found.violations_count == 0, found.generate_report()


def test_tables_are_sorted_with_the_keyboard(opened: Page) -> None:
    head = opened.locator("#look table").first.locator("th").nth(3)
    head.locator("button").focus()
    orders = []
    for _ in range(2):
        opened.keyboard.press("Enter")
        lengths = (
            opened.locator("#look table")
            .first.locator("tbody td:nth-child(4)")
            .evaluate_all("cells => cells.map((cell) => +cell.dataset.value)")
        )
        orders.append((head.get_attribute("aria-sort"), lengths))
    assert orders[0] == ("descending", sorted(orders[0][1], reverse=True))
    assert orders[1] == ("ascending", sorted(orders[0][1]))
    opened.locator("#look table").first.locator("th button").first.press("Enter")
    assert head.get_attribute("aria-sort") is None


def test_keyboard_reaches_everything_and_shows_where_it_is(opened: Page) -> None:
    opened.evaluate("document.querySelectorAll('details').forEach((one) => one.open = false)")
    round_trips: list[list[tuple[str, bool]]] = [[]]
    while len(round_trips) < 3:  # the first begins somewhere, the second is whole
        opened.keyboard.press("Tab")
        where = opened.evaluate(
            """() => {
                const at = document.activeElement, width = parseFloat(getComputedStyle(at).outlineWidth);
                return at === document.body ? null : [at.tagName, width >= 2];
            }"""
        )
        if where is None:
            round_trips.append([])
        else:
            round_trips[-1].append(tuple(where))
    reached = round_trips[1]
    assert all(shown for _, shown in reached)
    count = opened.evaluate("document.querySelectorAll('summary, th button, a').length")
    assert sum(tag in ("SUMMARY", "BUTTON", "A") for tag, _ in reached) == count
    opened.locator("#time summary").focus()
    opened.keyboard.press("Enter")
    assert opened.locator("#time details").get_attribute("open") is not None


def test_motion_is_left_out_where_it_is_not_wanted(opened: Page) -> None:
    assert opened.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    opened.emulate_media(reduced_motion="no-preference")
    assert opened.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "smooth"
    opened.emulate_media(reduced_motion="reduce")


def test_sound_plays(opened: Page) -> None:
    seconds = opened.evaluate(
        """() => new Promise((resolve, reject) => {
            const audio = document.querySelector("audio");
            audio.onloadedmetadata = () => resolve(audio.duration);
            audio.onerror = () => reject(audio.error.message);
            audio.load(); audio.preload = "metadata";
        })"""
    )
    assert seconds == pytest.approx(2.3, abs=0.15)
