"""Clip features of whole videos: extraction in one decoding pass, and a store whose files describe themselves."""

from uptal.features.extraction import Grid, decode_clips, encode, extract, lay_grid
from uptal.features.store import Features, FeatureStore, resample

__all__ = ["FeatureStore", "Features", "Grid", "decode_clips", "encode", "extract", "lay_grid", "resample"]
