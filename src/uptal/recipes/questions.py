"""Annotated sentences beside a feature store, and a trained LGI's answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uptal.annotations import match_ids, read_durations, read_queries
from uptal.errors import AnnotationError
from uptal.features import FeatureStore
from uptal.localizers.lgi import LGI
from uptal.localizers.lgi_candidates import candidates
from uptal.localizers.lgi_task import QueryBatcher, duration_of, ground_batch
from uptal.types import Detections, Query

NUM_CANDIDATES = 5
"""Candidates a query that predictions hold."""
_BATCH = 100
"""Queries a forward pass (public code)."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Annotated sentences, and which of their videos a store holds."""

    all: list[Query]
    """In file order."""
    present: list[Query]
    """Those whose video has features."""

    @property
    def missing(self) -> list[str]:
        """Videos without features."""
        return sorted({query.video for query in self.all} - {query.video for query in self.present})

    def describe(self, what: str) -> str:
        """The gap in a sentence; empty when there is none."""
        if not self.missing:
            return ""
        named = ", ".join(self.missing[:5]) + (", …" if len(self.missing) > 5 else "")
        lost = len(self.all) - len(self.present)
        return f"{lost} of {len(self.all)} {what} ask about {len(self.missing)} videos without features ({named})"


def read_questions(
    annotations: Path, store: FeatureStore, subset: str | None = None, durations: Sequence[Path] = ()
) -> Questions:
    """Queries of a file and what the store holds of them.

    Raises:
        AnnotationError: The store holds none of their videos.
    """
    seconds = {id: length for path in durations for id, length in read_durations(path).items()}
    queries = read_queries(annotations, subset, seconds or None)
    held = set(store.ids)
    present = [query for query in queries if query.video in held]
    if not present:
        ids = list(dict.fromkeys(query.video for query in queries))
        raise AnnotationError(
            f"{annotations}: none of the videos has features in {store.path}. {match_ids(ids, store.ids).describe()}"
        )
    return Questions(all=queries, present=present)


def answer(
    model: LGI, batcher: QueryBatcher, queries: Sequence[Query], store: FeatureStore | None = None
) -> list[Detections | None]:
    """Candidates in seconds for each query, best first, as the network says them: not clipped, not put in order.

    Args:
        model: In evaluation mode.
        batcher: Where sentences and features come from.
        queries: What is asked.
        store: Answers `None` for videos that it does not hold; without it all are there.
    """
    held = None if store is None else set(store.ids)
    there = [index for index, query in enumerate(queries) if held is None or query.video in held]
    found: list[Detections | None] = [None] * len(queries)
    asked = [queries[index] for index in there]
    place = iter(there)
    for batch in batcher.batches(asked, _BATCH):
        said = ground_batch(model, batch)
        for row in range(len(batch.names)):
            index = next(place)
            read = batcher.read(queries[index].video)
            seconds = duration_of(queries[index], read)
            start, end = (float(share) * seconds for share in said.location[row])
            attention = said.over_time[row, batch.valid[row]].double().numpy()
            found[index] = candidates((start, end), attention, seconds, NUM_CANDIDATES)
    return found
