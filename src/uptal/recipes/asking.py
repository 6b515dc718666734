"""My video and my sentences in, intervals out: a grounding run answers as JSON lines, CSV, SRT and a page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uptal.annotations import Answer, write_csv, write_groundings, write_srt
from uptal.errors import ConfigError
from uptal.features import Features
from uptal.localizers.lgi_candidates import candidates, held
from uptal.localizers.lgi_task import duration_of, ground_batch, segment_centres
from uptal.recipes.detecting import nothing_readable, video_features
from uptal.recipes.grounder_files import Grounder, load_grounder
from uptal.recipes.questions import NUM_CANDIDATES
from uptal.report import Grounded, Report, Section, VideoPanel, write_report
from uptal.run import environment
from uptal.types import Detections, Query


@dataclass(frozen=True)
class Reply:
    """What a run says to one sentence about one video."""

    query: Query
    found: Detections
    """Candidates in seconds within the video, start before end, best first."""
    shown: Grounded
    """The same for a page."""
    left_out: int
    """Words of the sentence that were not read, because it has more than the run takes."""

    @property
    def trust(self) -> float:
        """Share of the temporal attention inside the interval: the nearest thing to a confidence that there is."""
        return held(np.asarray(self.shown.over_time), np.array(self.shown.interval), self.shown.duration)


def ground(
    run: str | Path, videos: Sequence[str | Path], sentences: Sequence[str], out: str | Path, *, device: str = "auto"
) -> list[Reply]:
    """Finds sentences in videos with a trained run, and writes what `uptal ground` promises into `out`.

    Args:
        run: Folder of `uptal train lgi`; nothing else is needed.
        videos: Video files; unreadable ones are named at the end.
        sentences: Every one is asked about every video.
        out: Folder for groundings.jsonl, <stem>.csv, <stem>.srt and report.html.
        device: Where features are computed: `auto`, `cpu`, `cuda`.

    Raises:
        VideoError: The video cannot be read. ConfigError: None of several can, or one is not there. CheckpointError:
            The run cannot be used. AnnotationError: A sentence has no word.
    """
    paths, out, grounder = [Path(path) for path in videos], Path(out), load_grounder(Path(run))
    if not sentences:
        raise ConfigError("There is nothing to look for: give --query 'a person opens a door'.")
    grounder.text.encode(list(sentences))  # a sentence without words is said before hours of decoding
    features, quarantine = video_features(grounder, paths, device)
    if not features:
        raise nothing_readable(quarantine)
    replies = [reply for read in features for reply in replies_to(grounder, read, sentences)]
    write_groundings(out / "groundings.jsonl", [Answer(r.query.video, r.query.sentence, r.found) for r in replies])
    sources = {path.stem: path for path in paths}
    sections: list[Section] = []
    for read in features:
        mine = [reply for reply in replies if reply.query.video == read.id]
        write_csv(out / f"{read.id}.csv", {read.id: Detections.joined([_named(reply, reply.found) for reply in mine])})
        write_srt(out / f"{read.id}.srt", best_of(mine))
        sections.append(video_panel(sources[read.id], read, mine))
        sections += [reply.shown for reply in mine]
    summary = [f"Sentences: {len(sentences)}, videos: {len(features)}, answered by {Path(run).name}.", _CAVEAT]
    facts = environment() | {"run": Path(run).name, "encoder": str(grounder.features["encoder_digest"])[:16]}
    report = Report(title="Where is it?", summary=[*summary, quarantine.summary()], sections=sections, facts=facts)
    for message in write_report(out / "report.html", report):
        print(message)
    print(quarantine.summary(), end="", file=sys.stderr)
    return replies


_CAVEAT = (
    "The network always answers with an interval, also when nothing of the kind happens, and it understands only what "
    "its training sentences taught it. Look at the temporal attention before you believe it: a clear peak is a good "
    "sign."
)


def replies_to(
    grounder: Grounder, read: Features, sentences: Sequence[str], truth: Sequence[Query] = ()
) -> list[Reply]:
    """Answers to sentences about one video; `truth` gives annotated queries in their place."""
    asked = list(truth) or [
        Query(id=str(number), video=read.id, sentence=sentence, duration=read.duration)
        for number, sentence in enumerate(sentences)
    ]
    centres, replies = segment_centres(read, grounder.settings.lgi.num_segments), []
    for batch in grounder.batcher(lambda _: read).batches(asked, 32):
        said = ground_batch(grounder.model, batch)
        for row in range(len(batch.names)):
            query = asked[len(replies)]
            seconds = duration_of(query, read)
            attention = said.over_time[row, : len(centres)].double().numpy()
            first = sorted(min(max(float(share), 0.0), 1.0) * seconds for share in said.location[row])
            found = candidates((first[0], first[1]), attention, seconds, NUM_CANDIDATES)
            words = grounder.text.shown(query.sentence)
            weights = [] if said.over_words is None else said.over_words[row, :, : len(words)].tolist()
            shown = Grounded(
                video=read.id,
                sentence=query.sentence,
                interval=(first[0], first[1]),
                duration=seconds,
                words=words,
                over_words=weights,
                seconds=centres,
                over_time=attention,
                unknown=grounder.text.unknown(query.sentence),
                truth=(query.start, query.end) if query.located else None,
            )
            replies.append(Reply(query, found, shown, grounder.text.left_out(query.sentence)))
    return replies


def best_of(replies: Sequence[Reply]) -> Detections:
    """The network's own interval for each sentence, under the sentence as its name and with its `trust` as score."""
    spans = np.array([reply.shown.interval for reply in replies]).reshape(-1, 2)
    labels = tuple(reply.query.sentence for reply in replies)
    return Detections(spans, np.array([reply.trust for reply in replies]), labels)


def video_panel(path: Path, read: Features, replies: Sequence[Reply]) -> VideoPanel:
    """The player with the best candidate of every sentence in its timeline."""
    truth = tuple(segment for reply in replies for segment in _truth(reply))
    return VideoPanel(
        id=read.id,
        video_path=path,
        duration=read.duration,
        truth=truth or None,
        predictions=best_of(replies),
        timebase=read.timebase,
        note="Score: share of the temporal attention inside the interval.",
    )


def _truth(reply: Reply):
    query = reply.query
    if query.located:
        yield from Detections(np.array([[query.start, query.end]]), np.ones(1), (query.sentence,)).as_segments()


def _named(reply: Reply, found: Detections) -> Detections:
    return Detections(found.segments, found.scores, (reply.query.sentence,) * len(found))
