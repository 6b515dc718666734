"""One self-contained HTML page: videos with timeline and similarity map, tables, curves, the paper's Figure 3."""

from uptal.report.page import write_report
from uptal.report.sections import Cell, Column, Curve, HeatmapGrid, Measured, Report, Section, Table, VideoPanel

__all__ = [
    "Cell",
    "Column",
    "Curve",
    "HeatmapGrid",
    "Measured",
    "Report",
    "Section",
    "Table",
    "VideoPanel",
    "write_report",
]
