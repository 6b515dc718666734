"""One sentence and what a network made of it: attention over its words and over the video, without any script.

The player beside it shows the interval found; this shows why.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from uptal.report.sections import Grounded

WIDTH, HEIGHT, BASE = 900, 92, 70
"""Size of the drawing over time and its ground line, in its own units."""


def grounded_html(shown: Grounded) -> str:
    """The block of one sentence."""
    start, end = shown.interval
    words = "".join(_phrase(row, shown.words, number) for number, row in enumerate(shown.over_words))
    unknown = f" Not in the vocabulary: {', '.join(shown.unknown)}." if shown.unknown else ""
    legend = " Rows are phrases that the network reads out of the sentence." if len(shown.over_words) > 1 else ""
    return (
        f'<section class="card grounded"><h2>“{escape(shown.sentence)}”</h2>'
        f'<p class="answer">{escape(shown.video)}: {start:.2f} – {end:.2f} s</p>'
        f'<div class="phrases">{words}</div>{_timeline(shown)}'
        f'<p class="caption">Temporal attention; the bar is the interval found. The darker a word, the more it '
        f"counts.{legend}{escape(unknown)}</p></section>"
    )


def _phrase(weights: Sequence[float], words: Sequence[str], number: int) -> str:
    chips = "".join(
        f'<span class="word" style="--weight:{100 * weight:.0f}%" title="{100 * weight:.0f} %">{escape(word)}</span>'
        for word, weight in zip(words, weights, strict=True)
    )
    return f'<p class="phrase"><span class="unseen">Phrase {number + 1}: </span>{chips}</p>'


def _timeline(shown: Grounded) -> str:
    length = max(shown.duration, 1e-6)
    x = np.clip(np.asarray(shown.seconds) / length, 0, 1) * WIDTH
    top = max(float(np.max(shown.over_time)), 1e-12)
    y = BASE - 4 - (BASE - 10) * np.asarray(shown.over_time) / top
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    low, high = (min(max(value / length, 0.0), 1.0) * WIDTH for value in shown.interval)
    bars = f'<rect class="found" x="{low:.1f}" y="{BASE}" width="{max(high - low, 1.5):.1f}" height="7" rx="3"/>'
    if shown.truth is not None:
        first, last = (min(max(value / length, 0.0), 1.0) * WIDTH for value in shown.truth)
        bars += f'<rect class="true" x="{first:.1f}" y="{BASE + 10}" width="{last - first:.1f}" height="7" rx="3"/>'
    ends = f"{x[0]:.1f},{BASE} {line} {x[-1]:.1f},{BASE}"
    return (
        f'<svg class="attention" viewBox="0 -4 {WIDTH} {HEIGHT + 16}" role="img" aria-label="{_spoken(shown)}">'
        f'<polygon points="{ends}"/><polyline points="{line}"/>{bars}'
        f'<text x="0" y="{HEIGHT + 10}">0 s</text><text x="{WIDTH}" y="{HEIGHT + 10}" text-anchor="end">'
        f"{shown.duration:.1f} s</text></svg>"
    )


def _spoken(shown: Grounded) -> str:
    peak = float(np.asarray(shown.seconds)[int(np.argmax(shown.over_time))])
    return f"Temporal attention over {shown.duration:.1f} seconds, highest at {peak:.1f}"
