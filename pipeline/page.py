"""A digest of an output -> one HTML page that needs no network, or Markdown for terminals.

Duty: what is told, in which order and in which words. Everything that comes out of tables is escaped by Jinja2; the
page's own policy lets no script run but its own, and nothing be loaded. Knows no files of an output.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from pipeline import charts
from pipeline.digest import FAILED, KEPT, REASONS, SPEECHLESS, Digest
from pipeline.doubts import REASONS as DOUBTS
from pipeline.opinions import Agreement, Opinions
from pipeline.transcripts import Transcribed

_LANGUAGES = 12  # drawn for themselves; the others are one
_DRAWN = 1500  # stretches in a timeline
_SHOWN = 150  # segments whose text is told under one
_TEXT = 600  # characters of a text
_URI = 300


@dataclass(frozen=True)
class Sample:
    """A segment to look at: `audio` is a data URI, or empty; `trouble` says why there is none."""

    uri: str
    start: float
    end: float
    text: str
    language: str
    flags: Sequence[str]
    scores: Mapping[str, float]
    audio: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Story:
    """All that a page tells."""

    out: str
    digest: Digest
    samples: Sequence[Sample] = ()
    recordings: Sequence[Transcribed] = field(default=())  # whose time is drawn


def html(story: Story) -> str:
    """Return the page."""
    import jinja2
    from markupsafe import Markup

    source = resources.files("pipeline").joinpath("page.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", source, re.DOTALL)
    assert script is not None
    sha256 = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= _FILTERS
    found = story.digest
    return environment.from_string(source).render(
        out=story.out,
        digest=found,
        totals=totals(found),
        script_hash=sha256,
        reasons=[(name, seconds, REASONS.get(name, "")) for name, seconds in found.by_reason().items()],
        all_s=sum(found.by_reason().values()),
        flags=sorted(found.flag_s.items(), key=lambda item: -item[1]),
        languages=_languages(found),
        failures=sorted(found.failures.values(), key=lambda one: -one.count),
        colour=charts.colour,
        waterfall=_both(lambda width: Markup(charts.waterfall(found.by_reason(), width))),
        by_language=_both(lambda width: Markup(charts.by_language(*_by_language(found), width))),
        histograms=[(one, Markup(charts.histogram(one))) for one in found.histograms],
        timelines=[_timeline(one) for one in story.recordings],
        samples=story.samples,
        opinions=_agreements(found.opinions) if found.opinions else [],
        failed=FAILED,
        kept=KEPT,
    )


def markdown(story: Story) -> str:
    """Return the same in short, as Markdown that reads well in a terminal."""
    found = story.digest
    all_s = sum(found.by_reason().values())
    lines = [f"# {_cell(story.out)}", ""]
    lines += [f"- {name}: {value}" for name, value in totals(found)]
    lines += ["", "## Where the time goes", ""]
    lines += _table(
        ("reason", "time", "share"),
        [
            (name, _span(seconds), _percent(seconds / all_s if all_s else 0))
            for name, seconds in found.by_reason().items()
        ],
    )
    lines += ["", "## Languages", ""]
    rows = [
        (
            row["language"],
            f"{row['recordings']:,.0f}",
            _span(row["speech_s"]),
            _span(row["kept_s"]),
            _span(row["flagged_s"]),
        )
        for row in _languages(found)
    ]
    lines += _table(("language", "recordings", "speech", "kept", "flagged"), rows)
    if found.opinions:
        lines += ["", "## Second opinions", "", _cell(asked(found.opinions)), ""]
        told = [
            (name, f"{one.asked:,}", _percent(one.agreed_share), _percent(one.wer), _percent(one.edge_cer))
            for name, one, _ in _agreements(found.opinions)
        ]
        lines += _table(("doubt", "segments", "both agree", "word errors", "errors at edges"), told)
    if found.failures:
        lines += ["", "## Failures", ""]
        failed = sorted(found.failures.values(), key=lambda one: -one.count)
        named = [(f"{one.stage}: {one.kind}", one.count, one.retryable, ": ".join(one.examples[0])) for one in failed]
        lines += _table(("kind", "recordings", "retryable", "for example"), named)
    for title, table, column in (
        ("Worst recordings", found.picks.worst, "flagged_share"),
        ("Most decoding", found.picks.slowest, "decodings_a_minute"),
    ):
        if len(table):
            lines += ["", f"## {title}", ""]
            shown = [(row["uri"], _span(row["duration_s"]), _number(row[column])) for row in table.to_dict("records")]
            lines += _table(("recording", "length", column.replace("_", " ")), shown)
    return "\n".join(lines) + "\n"


def totals(found: Digest) -> list[tuple[str, str]]:
    """Return the numbers that come first, as words and values."""
    statuses = ", ".join(f"{found.statuses[status]:,} {status}" for status in ("ok", "partial", "failed"))
    share = found.flagged_segments / found.segments if found.segments else 0
    return [
        ("recordings", f"{found.recordings:,} ({statuses})"),
        ("audio", _span(found.duration_s)),
        ("speech", _span(found.speech_s)),
        ("text without flags", _span(found.kept_s)),
        ("segments", f"{found.segments:,} ({_percent(share)} flagged)"),
        ("characters", f"{found.characters:,}"),
        ("size of the audio", _bytes(found.size_bytes)),
        ("model", ", ".join(found.models)),
    ]


def asked(found: Opinions) -> str:
    """Return a sentence of how many segments were heard again."""
    models = ", ".join(found.models)
    outdated = f" Not counted are recordings that were transcribed anew since: {found.outdated:,}." * bool(
        found.outdated
    )
    return (
        f"{found.all.asked:,} of {found.doubtful:,} doubtful segments were transcribed again by {models or 'nobody'},"
        f" from {_span(found.heard_s)} of audio.{outdated}"
    )


def _agreements(found: Opinions) -> list[tuple[str, Agreement, str]]:
    """Return how far both texts agree, in all and for each reason of doubt, with what that is."""
    reasons = sorted(found.by_reason.items(), key=lambda item: -item[1].asked)
    every = "Each segment once; it may have several reasons."
    told = [(name, one, DOUBTS.get(name, "").replace("`", "")) for name, one in reasons]
    return [("all", found.all, every), *told]


def _both(draw: Callable[[int], Any]) -> list[tuple[str, Any]]:
    """Draw a chart for phones and for desks; the page shows one of both."""
    return [("narrow", draw(charts.NARROW)), ("wide", draw(charts.WIDE))]


def _by_language(found: Digest) -> tuple[dict[tuple[str, str], float], list[str]]:
    """Return seconds by language and reason, longest language first, the small ones together."""
    sums: dict[str, float] = {}
    for (language, _), seconds in found.seconds.items():
        sums[language] = sums.get(language, 0.0) + seconds
    ranked = sorted(sums, key=lambda language: -sums[language])
    reasons = list(found.by_reason())
    drawn: dict[tuple[str, str], float] = {}
    for language in ranked:
        for reason in reasons:
            if seconds := found.seconds.get((language, reason), 0.0):
                name = language if language in ranked[:_LANGUAGES] else "others"
                drawn[name, reason] = drawn.get((name, reason), 0.0) + seconds
    return drawn, reasons


def _languages(found: Digest) -> list[dict[str, Any]]:
    rows = []
    for language, counts in found.languages.items():
        flagged = sum(
            seconds
            for (one, reason), seconds in found.seconds.items()
            if one == language and reason not in (KEPT, SPEECHLESS, "no text")
        )
        about = {"language": language or "none", "flagged_s": flagged}
        rows.append({**counts, **about, "kept_s": found.seconds.get((language, KEPT), 0.0)})
    return sorted(rows, key=lambda row: (-row["speech_s"], -row["recordings"]))


def _timeline(one: Transcribed) -> dict[str, Any]:
    """Return a recording with its drawings, for phones and for desks, and the first of its texts."""
    from markupsafe import Markup

    start_s, length_s = one.recording.get("start_s") or 0.0, one.recording["duration_s"] or 0.0
    stretches = _stretches(one, start_s, length_s)
    drawings = _both(lambda width: Markup(charts.timeline(stretches, start_s, start_s + length_s, width)))
    return {
        "recording": one.recording,
        "drawings": drawings,
        "segments": one.segments[:_SHOWN],
        "more": max(0, len(one.segments) - _SHOWN),
    }


def _stretches(one: Transcribed, start_s: float, length_s: float) -> list[dict[str, Any]]:
    """Return what is drawn: speech and stretches without it, text and its flags; neighbours that are alike as one."""
    silent = [(item["start"], item["end"]) for item in one.recording["speechless"] or ()]
    edges = [start_s, *(edge for pair in silent for edge in pair), start_s + length_s]
    rows = [{"lane": "sound", "reason": SPEECHLESS, "start": start, "end": end} for start, end in silent]
    rows += [
        {"lane": "sound", "reason": "speech", "start": start, "end": end}
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        if end > start
    ]
    near = length_s / 1000
    text: list[dict[str, Any]] = []
    for segment in one.segments:
        reason = next(iter(segment["flags"]), KEPT)
        if text and text[-1]["reason"] == reason and segment["start"] - text[-1]["end"] < near:
            text[-1]["end"] = max(text[-1]["end"], segment["end"])
        else:
            text.append({"lane": "text", "reason": reason, "start": segment["start"], "end": segment["end"]})
    return [*rows[:_DRAWN], *text[:_DRAWN]]


# --- words and numbers ------------------------------------------------------------------------------------------------


def _span(seconds: float | None) -> str:
    if seconds is None or math.isnan(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02} s"
    return f"{seconds / 3600:,.1f} h"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole // 60 % 60:02}:{whole % 60:02}.{int(seconds * 10) % 10}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"


def _short(text: Any, length: int = _TEXT) -> str:
    shown = str(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


_FILTERS: dict[str, Callable[..., str]] = {
    "span": _span,
    "clock": _clock,
    "percent": _percent,
    "number": _number,
    "bytes": _bytes,
    "short": _short,
    "asked": asked,
}


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return lines + [f"| {' | '.join(map(_cell, row))} |" for row in rows]


def _cell(value: Any) -> str:
    """Return text that stays in its cell and is no markup."""
    text = _short(value, _URI).replace("\\", "\\\\")
    return re.sub(r"([|<>`*_\[\]])", r"\\\1", re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text))
