"""Counts -> charts: SVG text that takes its colours from the page, so that they follow light and dark.

Duty: what a chart looks like. Altair (the grammar) and vl-convert (Vega's own renderer, no browser) draw; they are
loaded with the first chart (extra `report`). Knows no page and no tables of an output.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd

from pipeline.digest import Histogram
from pipeline.errors import UserError, install

NARROW, WIDE = 330, 900  # pixels: a phone's column, and a desk's
_LINE = 26  # pixels that a bar has in height
_LABEL = 118  # pixels of the names beside bars

# Custom properties of the page, by reason; flags that are not named here take the last.
COLOURS = {
    "kept": "--kept",
    "speechless": "--speechless",
    "no text": "--textless",
    "failed": "--failed",
    "low_logprob": "--flag-1",
    "repetitive": "--flag-2",
    "no_speech": "--flag-3",
    "fallback_exhausted": "--flag-4",
}
_OTHER = "--flag-5"


def colour(reason: str) -> str:
    """Return a reason's colour, as CSS."""
    return f"var({COLOURS.get(reason, _OTHER)})"


def waterfall(seconds: Mapping[str, float], width: int) -> str:
    """Draw where the hours go: what there is, what each reason takes of it, and what is kept."""
    total = sum(seconds.values())
    unit, divisor = unit_of(total)
    rows: list[dict[str, Any]] = [
        {"reason": "all", "start": 0.0, "end": total / divisor, "colour": "var(--all)", "told": ""}
    ]
    left = total
    for reason, taken in seconds.items():
        span = {"start": (left - taken) / divisor, "end": left / divisor}
        rows.append({"reason": reason, **span, "colour": colour(reason), "told": ""})
        left -= taken
    for row in rows:
        amount = row["end"] - row["start"]
        row["told"] = f"{amount:.{1 if amount < 100 else 0}f} {unit}"
        if width > NARROW:
            row["told"] += f", {100 * amount * divisor / max(total, 1e-9):.0f} %"
    beside = 58 if width <= NARROW else 96
    alt = _altair()
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("reason:N", sort=None, title=None), description=alt.Description("told:N")
    )
    bars = base.mark_bar(cornerRadius=3, height=_LINE - 8).encode(
        x=alt.X(
            "start:Q",
            title=None,
            axis=alt.Axis(tickCount=4),
            scale=alt.Scale(domain=[0, max(total / divisor, 1e-9)], nice=False),
        ),
        x2="end:Q",
        color=alt.Color("colour:N", scale=None),
    )
    reasons = [row["reason"] for row in rows]
    labels = alt.Axis(orient="right", domain=False, ticks=False, labelLimit=beside, labelExpr=_look_up(rows))
    told = base.mark_bar(opacity=0).encode(
        y=alt.Y("reason:N", sort=reasons, title=None, axis=labels), x=alt.value(0), x2=alt.value(0)
    )
    chart = alt.layer(bars, told).resolve_scale(y="independent")
    return _svg(chart.properties(width=width - _LABEL - beside, height=_LINE * len(rows)), "Where the hours go")


def _look_up(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return Vega's expression for the amount beside a bar."""
    return f"{json.dumps({row['reason']: row['told'] for row in rows})}[datum.value]"


def by_language(seconds: Mapping[tuple[str, str], float], reasons: Sequence[str], width: int) -> str:
    """Draw the hours of each language, by reason."""
    unit, divisor = unit_of(max(_sums(seconds).values(), default=0.0))
    rows = [
        {
            "language": language or "none",
            "amount": amount / divisor,
            "colour": colour(reason),
            "order": reasons[::-1].index(reason),
            "told": f"{language or 'none'}, {reason}: {amount / divisor:.2f} {unit}",
        }
        for (language, reason), amount in seconds.items()
    ]
    languages = list(dict.fromkeys(row["language"] for row in rows))
    alt = _altair()
    chart = (
        alt.Chart(_data(rows))
        .mark_bar(height=_LINE - 8)
        .encode(
            y=alt.Y("language:N", sort=languages, title=None),
            x=alt.X("amount:Q", title=unit, stack="zero", axis=alt.Axis(tickCount=4)),
            color=alt.Color("colour:N", scale=None),
            order=alt.Order("order:Q"),
            description=alt.Description("told:N"),
        )
    )
    return _svg(
        chart.properties(width=width - 84, height=_LINE * max(1, len(languages))), "Time by language and reason"
    )


def histogram(one: Histogram, width: int = NARROW) -> str:
    """Draw how a score is distributed: unflagged and flagged segments, and where flags begin."""
    edges = one.edges
    rows = [
        {
            "start": edges[at],
            "end": edges[at + 1],
            "count": int(counts[at]),
            "colour": shown,
            "told": f"{edges[at]:.3g} to {edges[at + 1]:.3g}: {counts[at]} {name}",
        }
        for name, shown, counts in (
            ("unflagged", "var(--kept)", one.unflagged),
            ("flagged", "var(--flagged)", one.flagged),
        )
        for at in range(len(counts))
        if counts[at]
    ]
    alt = _altair()
    bars = (
        alt.Chart(_data(rows))
        .mark_bar(binSpacing=1)
        .encode(
            x=alt.X(
                "start:Q",
                bin="binned",
                title=None,
                axis=alt.Axis(tickCount=5, grid=False, format="~r"),
                scale=alt.Scale(domain=[one.score.low, one.score.high]),
            ),
            x2="end:Q",
            y=alt.Y("count:Q", title=None, stack="zero", axis=alt.Axis(tickCount=3, format="~s")),
            color=alt.Color("colour:N", scale=None),
            description=alt.Description("told:N"),
        )
    )
    if one.threshold is not None:
        rule = alt.Chart(_data([{"at": one.threshold}])).mark_rule(strokeDash=[4, 3], color="var(--ink)")
        bars = alt.layer(bars, rule.encode(x="at:Q"))
    return _svg(bars.properties(width=width - 66, height=110), f"Distribution of the {one.score.doc}")


def timeline(rows: Sequence[Mapping[str, Any]], start_s: float, end_s: float, width: int) -> str:
    """Draw a recording's time, seconds of its file: `rows` have a lane, start and end, and a reason."""
    lanes = ["sound", "text"]
    divisor, unit = (60.0, "minutes") if end_s - start_s >= 120 else (1.0, "seconds")
    drawn = [
        {
            "lane": row["lane"],
            "start": row["start"] / divisor,
            "end": row["end"] / divisor,
            "colour": "var(--speech)" if row["reason"] == "speech" else colour(row["reason"]),
            "told": f"{row['reason']}, {row['start']:.1f} to {row['end']:.1f} s",
        }
        for row in rows
    ]
    alt = _altair()
    chart = (
        alt.Chart(_data(drawn))
        .mark_bar(height=18)
        .encode(
            y=alt.Y("lane:N", sort=lanes, title=None, scale=alt.Scale(domain=lanes)),
            x=alt.X(
                "start:Q",
                title=unit,
                scale=alt.Scale(domain=[start_s / divisor, max(end_s, start_s + 1e-9) / divisor], nice=False),
                axis=alt.Axis(grid=False, tickCount=6),
            ),
            x2="end:Q",
            color=alt.Color("colour:N", scale=None),
            description=alt.Description("told:N"),
        )
    )
    return _svg(chart.properties(width=width - 62, height=2 * _LINE), "Timeline of speech, text and flags")


def unit_of(seconds: float) -> tuple[str, float]:
    """Return the unit for so many seconds, and the seconds that it has."""
    if seconds >= 2 * 3600:
        return "h", 3600.0
    return ("min", 60.0) if seconds >= 120 else ("s", 1.0)


def _sums(seconds: Mapping[tuple[str, str], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for (language, _), amount in seconds.items():
        found[language] = found.get(language, 0.0) + amount
    return found


def _data(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


@cache
def _altair() -> Any:
    try:
        importlib.import_module("vl_convert")
        alt = importlib.import_module("altair")
    except ImportError as error:
        raise UserError(
            f"the page's charts need {error.name}",
            f"{install('report')}, or --format md, which has none",
        ) from error
    alt.data_transformers.disable_max_rows()
    return alt


def _svg(chart: Any, title: str) -> str:
    """Return the chart as SVG that is as wide as it was made, or as its column where that is less."""
    import vl_convert

    axis = {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
    }
    chart = chart.properties(background="transparent", padding=2).configure(
        font="Liberation Sans, Arial, Helvetica, sans-serif", view={"stroke": None}, axis=axis
    )
    svg = str(vl_convert.vegalite_to_svg(chart.to_dict()))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
