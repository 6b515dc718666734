"""Sentences about the untrimmed videos of the corpus and when each is true: verbs, speed, repetition, order.

    video,start,end,sentence,duration,subset

What is said follows from the screenplay alone, so the sentences change no frame. Every sentence is true of one stretch
of its video only: which performance is meant, or which order, is said wherever the verb alone would not do.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from uptal.files import atomic_write
from uptal.synthetic.config import CorpusConfig
from uptal.synthetic.motion import draw_tempo
from uptal.synthetic.script import annotate, rng_for
from uptal.types import Query, Segment

PHRASES: dict[str, tuple[str, ...]] = {
    "circle_outward": ("swings both arms outward in circles", "circles the arms outward"),
    "circle_inward": ("swings both arms inward in circles", "circles the arms inward"),
    "fling_up": ("flings both arms up", "throws the arms up"),
    "fling_down": ("flings both arms down", "throws the arms down"),
    "star_jump": ("does star jumps", "jumps with arms and legs apart"),
    "kick": ("kicks", "kicks to the side"),
    "arm_wave": ("waves both arms", "waves"),
    "clap": ("claps", "claps the hands"),
    "squat_drop": ("drops into a squat", "drops to the knees"),
    "squat_spring": ("springs up from a squat", "springs up from the knees"),
    "lean": ("leans from side to side", "leans left and right"),
    "march": ("marches", "marches on the spot"),
}
"""What each action is called, third person singular."""
SUBJECTS = ("a person", "the person", "someone", "the figure")
ORDINALS = ("first", "second", "third", "fourth", "fifth")
ADVERBS = ("quickly", "slowly")
"""Of a video whose tempo is above or below the middle of the corpus's range."""

_TOPIC = 11


def video_queries(config: CorpusConfig, index: int) -> list[Query]:
    """Sentences about one untrimmed video: one for every instance, one for every two that follow each other."""
    video, rng = annotate(config, "untrimmed", index), rng_for(config, "untrimmed", index, _TOPIC)
    adverb = _adverb(config, index)
    spans = [*_single(video.segments, adverb, rng), *_pairs(video.segments, rng)]
    return [
        Query(
            id=str(number), video=video.id, sentence=sentence, start=start, end=end, duration=video.duration,
            subset=video.subset,
        )
        for number, (sentence, start, end) in enumerate(spans)
    ]  # fmt: skip


def write_queries(path: Path, config: CorpusConfig) -> None:
    """Writes the sentences of all untrimmed videos as a table."""
    with atomic_write(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("video", "start", "end", "sentence", "duration", "subset"))
        for index in range(config.num_untrimmed):
            for query in video_queries(config, index):
                table.writerow((query.video, query.start, query.end, query.sentence, query.duration, query.subset))


def _single(segments: Sequence[Segment], adverb: str, rng: np.random.Generator) -> Iterator[tuple[str, float, float]]:
    """A sentence for each instance, which says the how manyth it is where that is needed."""
    labels = [segment.label for segment in segments]
    for place, segment in enumerate(segments):
        words = [_choose(SUBJECTS, rng), _phrase(segment, rng)]
        if rng.uniform() < 0.5:
            words.append(adverb)
        if labels.count(segment.label) > 1:
            words.append(_which(labels[:place].count(segment.label), labels.count(segment.label), rng))
        yield " ".join(words) + ".", segment.start, segment.end


def _pairs(segments: Sequence[Segment], rng: np.random.Generator) -> Iterator[tuple[str, float, float]]:
    """A sentence for every two neighbours that follow each other in this order once only."""
    kinds = [(one.label, other.label) for one, other in pairwise(segments)]
    for kind, (one, other) in zip(kinds, pairwise(segments), strict=True):
        if kinds.count(kind) > 1 or one.label == other.label:
            continue
        first, second, subject = _phrase(one, rng), _phrase(other, rng), _choose(SUBJECTS, rng)
        if rng.uniform() < 0.5:
            yield f"{subject} {first}, then {second}.", one.start, other.end
        else:
            yield f"after {subject} {first}, it {second}.", other.start, other.end


def _phrase(segment: Segment, rng: np.random.Generator) -> str:
    return _choose(PHRASES.get(str(segment.label), (f"does the {str(segment.label).replace('_', ' ')}",)), rng)


def _which(place: int, count: int, rng: np.random.Generator) -> str:
    """`for the second time`, or `for the last time`."""
    if place == count - 1 and rng.uniform() < 0.5:
        return "for the last time"
    return f"for the {ORDINALS[place] if place < len(ORDINALS) else f'{place + 1}th'} time"


def _adverb(config: CorpusConfig, index: int) -> str:
    middle = float(np.exp(np.mean(np.log(config.period_frames))))
    return ADVERBS[draw_tempo(config, rng_for(config, "untrimmed", index, 2)) > middle]


def _choose(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
