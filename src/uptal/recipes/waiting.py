"""Whether a run waits for data or data for the run, in words, with what can be done; the measuring is for others."""

from __future__ import annotations

WAITING = 0.1
"""Share of time waiting for data above which something should be done."""


def describe_wait(share: float) -> str:
    """One line for a run, a bench or a report.

    >>> describe_wait(0.02)
    '2% of the time goes into waiting for data; training sets the pace, not reading videos'
    """
    text = f"{share:.0%} of the time goes into waiting for data; "
    if share <= WAITING:
        return text + "training sets the pace, not reading videos"
    return (
        text + "try more --data.workers (up to one a core), `uptal transcode` (copies that are quicker to read), "
        "--data.cache_mib where decoded videos fit into memory, or a smaller --data.resize"
    )
