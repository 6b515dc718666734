"""The paper's tables as experiments: which rows, what is measured, and the paper's numbers of other data beside them.

A row is a method by its name in `rows`; where the paper compares methods that are not in this toolkit, the paper's
numbers alone are in `docs/paper.md`. Numbers of the paper are percent, in the order of the columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from uptal.errors import ConfigError
from uptal.evidence.measures import MEASURES
from uptal.evidence.methods import Method

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Line:
    """A row."""

    method: str
    """Name in `rows`."""
    title: str
    paper: Numbers | None = None
    """The paper's numbers for what this row corresponds to there."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table, or the one figure of bars."""

    name: str
    title: str
    measures: tuple[str, ...]
    shown: tuple[tuple[str, str], ...] = ()
    """(measure, number) of each column; all numbers of the measures when not given."""
    judged: tuple[tuple[str, str], ...]
    """(measure, number) on which rows are compared with the row `against`, and which are drawn."""
    against: str
    """Method with which the others are compared."""
    lines: tuple[Line, ...]
    data: str
    """What the paper's numbers are of."""
    note: str = ""

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(measure, number) of each column."""
        return self.shown or tuple((name, key) for name in self.measures for key in MEASURES[name].columns)


CONTROLS = (
    Line("frame_difference", "frame differences (no network)"),
    Line("luminance", "brightness (no network)"),
    Line("random", "untrained encoder"),
)
"""What knows next to nothing; a method that is not above them has learnt nothing that counts."""
MOCO = (
    Line("moco_videos", "MoCo-v2, equal videos"),
    Line("moco_1", "MoCo-v2, stride 1, equal clips"),
    Line("moco_stride", "MoCo-v2, strides 1 to 4, equal clips"),
    Line("moco_mixup", "MoCo-v2 + blending, equal clips"),
)
"""Controls of the comparison with MoCo-v2: compute, stride and blending."""

TABLE1 = Experiment(
    name="table1",
    title="Table 1: detection (G-TAD) and proposals (BMN)",
    measures=("gtad", "bmn"),
    judged=(("gtad", "mAP"), ("bmn", "AUC")),
    against="moco",
    lines=(
        *CONTROLS,
        Line("tac_frame", "labels, single frames"),
        Line("moco", "MoCo-v2, stride 2, equal clips", (46.6, 30.7, 6.3, 30.3, 30.8, 53.5, 72.4, 64.0)),
        *MOCO,
        Line("pal", "PAL", (49.3, 34.0, 7.9, 33.4, 33.7, 55.9, 75.0, 66.8)),
        Line("pal_no_paste", "PAL without paste"),
        Line("pal_plus", "pal_plus: PAL and a boundary loss"),
        Line("tac", "TAC (labels)", (48.5, 32.9, 7.2, 32.5, 32.3, 54.6, 73.5, 65.6)),
    ),
    data="I3D, Kinetics-400, ActivityNet v1.3",
    note="The paper's other rows (CoCLR, XDC, VideoMoCo, RSPNet, AoT, SpeedNet, BSP, LoFi, TSP) are methods that this "
    "toolkit does not have.",
)
TABLE2 = Experiment(
    name="table2",
    title="Table 2: grounding of sentences (LGI)",
    measures=("lgi",),
    judged=(("lgi", "mIoU"), ("lgi", "R_0.5")),
    against="moco",
    lines=(
        *CONTROLS,
        Line("moco", "MoCo-v2, stride 2, equal clips", (54.2, 40.9, 21.1, 38.7)),
        Line("pal", "PAL", (63.7, 50.0, 27.2, 46.8)),
        Line("tac", "TAC (labels)", (61.6, 46.8, 24.6, 44.3)),
    ),
    data="I3D, Kinetics-400, Charades-STA",
)
TABLE3 = Experiment(
    name="table3",
    title="Table 3: what each design of PAL brings (G-TAD)",
    measures=("gtad",),
    judged=(("gtad", "mAP"),),
    against="moco_1",
    lines=(
        Line("random", "untrained encoder"),
        Line("moco_1", "#0: one clip, stride 1 (MoCo-v2), equal clips", (None, None, None, 29.6)),
        Line("t3_1", "#1: dense", (None, None, None, 30.1)),
        Line("pal_no_paste", "#2: dense, scale", (None, None, None, 30.7)),
        Line("pal_same", "#3: dense, scale, paste on one background", (None, None, None, 32.1)),
        Line("pal", "#4 (PAL): dense, scale, paste on two", (None, None, None, 32.8)),
        Line("moco_stride", "one clip, strides 1 to 4, equal clips"),
        Line("tac", "TAC (labels)"),
    ),
    data="I3D, Kinetics-400, 100 epochs, ActivityNet v1.3",
    note="Rows #0 and `strides 1 to 4` get eight times the videos a step, so that all rows encode equally many clips; "
    "the paper counts epochs.",
)
TABLE4 = Experiment(
    name="table4",
    title="Table 4: layers of the temporal head (G-TAD)",
    measures=("gtad",),
    judged=(("gtad", "mAP"),),
    against="t4_0",
    lines=(
        Line("t4_0", "0 layers", (None, None, None, 30.8)),
        Line("t4_1", "1 layer", (None, None, None, 32.1)),
        Line("pal", "2 layers (PAL)", (None, None, None, 32.8)),
        Line("t4_3", "3 layers", (None, None, None, 32.5)),
    ),
    data="I3D, Kinetics-400, 100 epochs, ActivityNet v1.3",
)
TABLE5 = Experiment(
    name="table5",
    title="Table 5: blend ratio of the paste (G-TAD)",
    measures=("gtad",),
    judged=(("gtad", "mAP"),),
    against="t5_hard",
    lines=(
        Line("t5_hard", "beta = 1 (hard)", (None, None, None, 32.2)),
        Line("t5_0_04", "[0, 0.4]", (None, None, None, 30.7)),
        Line("t5_04_06", "[0.4, 0.6]", (None, None, None, 31.5)),
        Line("pal", "[0.6, 1] (PAL)", (None, None, None, 32.8)),
        Line("t5_0_1", "[0, 1]", (None, None, None, 31.3)),
    ),
    data="I3D, Kinetics-400, 100 epochs, ActivityNet v1.3",
)
TABLE6 = Experiment(
    name="table6",
    title="Table 6: detection in windows, loose thresholds (G-TAD as on THUMOS'14)",
    measures=("gtad_windows",),
    shown=tuple(("gtad_windows", f"mAP_{at}") for at in ("0.30", "0.40", "0.50", "0.60", "0.70")),
    judged=(("gtad_windows", "mAP"),),
    against="moco",
    lines=(
        *CONTROLS,
        Line("tac", "TAC (labels)", (44.6, 37.3, 29.5, 18.8, 9.5)),
        Line("moco", "MoCo-v2, stride 2, equal clips", (41.5, 34.1, 25.8, 17.3, 7.9)),
        Line("pal", "PAL", (46.8, 40.3, 30.8, 19.3, 10.9)),
    ),
    data="I3D, Kinetics-400, 100 epochs, THUMOS'14",
)
TABLE7 = Experiment(
    name="table7",
    title="Table 7: transfer to classification",
    measures=("classes", "finetune"),
    judged=(("finetune", "finetune"), ("classes", "knn")),
    against="moco",
    lines=(
        *CONTROLS,
        Line("moco", "MoCo-v2, stride 2, equal clips", (None, None, 82.0)),
        Line("pal", "PAL", (None, None, 84.7)),
        Line("tac", "TAC (labels)"),
    ),
    data="3D-ResNet-50, Kinetics-400, UCF101",
    note="The paper fine-tunes all layers; nearest neighbours and a linear classifier on frozen features are ours.",
)
FIGURE1 = Experiment(
    name="figure1",
    title="Figure 1: localization beside classification",
    measures=("gtad", "finetune"),
    shown=(("gtad", "mAP"), ("finetune", "finetune")),
    judged=(("gtad", "mAP"), ("finetune", "finetune")),
    against="moco",
    lines=(
        Line("random", "untrained encoder"),
        Line("moco", "MoCo-v2, stride 2, equal clips", (30.3, None)),
        Line("pal", "PAL", (33.4, None)),
        Line("tac", "TAC (labels)", (32.5, None)),
    ),
    data="I3D, Kinetics-400, ActivityNet v1.3; its other axis is drawn without numbers",
)

EXPERIMENTS = {
    each.name: each for each in (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, TABLE7, FIGURE1)
}  # fmt: skip
"""Everything that `uptal reproduce` runs by one pattern."""


def chosen(experiment: Experiment, names: str | None, known: Mapping[str, Method]) -> tuple[Line, ...]:
    """The rows of an experiment, or those named, of whatever table; the one that they are compared with stays.

    Raises:
        ConfigError: There is no such row.
    """
    if names is None or names == "all":
        return experiment.lines
    own = {line.method: line for line in experiment.lines}
    found = []
    for name in names.split(","):
        if name not in known:
            raise ConfigError(f"There is no row {name!r}. Rows of {experiment.name}: {', '.join(own)}; others: "
                              f"{', '.join(other for other in known if other not in own)}.")  # fmt: skip
        found.append(own.get(name, Line(name, known[name].title)))
    return tuple(found)
