"""The three corpora that experiments are run on, and the digests that say whether they are still the same.

Their knobs are set by the gate (`benchmarks/corpus_gate.py`) and by looking at them, with no result of PAL at hand (of
MoCo-v2, for C: docs/decisions/0013-corpus-gate.md). The demo's corpus is none of them and shares no seed with them.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from uptal.synthetic.config import CorpusConfig, unique_scenes, web_like
from uptal.synthetic.render import render_video

_CPU = CorpusConfig(size=32, num_trimmed=900, num_untrimmed=160, trimmed_frames=80, untrimmed_frames=256)
"""What they have in common at the size of a laptop; for a GPU, other sizes and numbers of the same corpora."""

CORPORA = {
    "A": unique_scenes(replace(_CPU, seed=101)),
    "B": replace(_CPU, seed=202),
    "C": replace(web_like(replace(_CPU, seed=303)), camera_motion=1.0, max_distractors=1, p_prop=0.05, p_absent=0.05),
}
"""A: every shot has a scene of its own. B: all share two dozen scenes. C: as from the web, with props and cuts, by a
calmer camera than the others."""

DIGESTS: dict[str, str] = {
    "A": "e82b2c5590ecc5cf56ede99e27baadaac8f3e8ac81d2a37a99e157e71d2fd9be",
    "B": "b5ace27a0e7d9bcf6106fe19e02065480a34d2be4bb58c9e70666e678b90e937",
    "C": "ef1232689df8ab09b0abd0ccb836ea23e548194892f8479c89dcebfb85a7b35a",
}
"""`frames_digest` of each corpus that is frozen (docs/decisions/0013-corpus-gate.md). Of one that is not here,
knobs and seeds may still change, and no experiment should be quoted."""


def frames_digest(config: CorpusConfig) -> str:
    """SHA-256 over frames of one trimmed and one untrimmed video."""
    digest = hashlib.sha256()
    for kind in ("trimmed", "untrimmed"):
        frames, _ = render_video(config, kind, 0)
        digest.update(frames[:: len(frames) // 8].tobytes())
    return digest.hexdigest()
