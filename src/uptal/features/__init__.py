"""Clip features of whole videos: extraction in one decoding pass, and a store whose files describe themselves."""

from uptal.features.csv100 import csv_mean_100
from uptal.features.encoding import encode, make_ready
from uptal.features.extraction import Extracted, Work, extract
from uptal.features.grid import Grid, Sampling, decode_clips, lay_grid
from uptal.features.store import Features, FeatureStore, resample, writing

__all__ = [
    "Extracted",
    "FeatureStore",
    "Features",
    "Grid",
    "Sampling",
    "Work",
    "csv_mean_100",
    "decode_clips",
    "encode",
    "extract",
    "lay_grid",
    "make_ready",
    "resample",
    "writing",
]
