"""Clip encoders: one architecture a file; here are the names that the rest of the house uses."""

from uptal.clipspec import ClipSpec
from uptal.encoders.contract import ClipEncoder, available, build, name_of, variants
from uptal.encoders.cost import count_macs, count_parameters
from uptal.encoders.saving import Classes, SavedEncoder, load_encoder, save_encoder
from uptal.encoders.shipped import DEFAULT, locate, shipped

__all__ = [
    "DEFAULT",
    "Classes",
    "ClipEncoder",
    "ClipSpec",
    "SavedEncoder",
    "available",
    "build",
    "count_macs",
    "count_parameters",
    "load_encoder",
    "locate",
    "name_of",
    "save_encoder",
    "shipped",
    "variants",
]
