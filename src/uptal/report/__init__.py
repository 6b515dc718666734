"""One self-contained HTML page: videos with timeline and similarity map, tables, curves, the paper's Figure 3."""

from uptal.report.diagnosis import diagnosis_sections
from uptal.report.page import write_report
from uptal.report.sections import (
    Cell,
    Column,
    Curve,
    Grounded,
    HeatmapGrid,
    Measured,
    Report,
    Section,
    Table,
    VideoPanel,
)

__all__ = [
    "Cell",
    "Column",
    "Curve",
    "Grounded",
    "HeatmapGrid",
    "Measured",
    "Report",
    "Section",
    "Table",
    "VideoPanel",
    "diagnosis_sections",
    "write_report",
]
