"""ELAN's annotation files (.eaf): one video a file, tiers of annotations on time slots in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from uptal.annotations.fields import Place, number, quoted
from uptal.annotations.gathering import Row, file_stem, instance


def elan_rows(content: str, place: Place) -> Iterator[Row]:
    """Every time-aligned annotation of every tier; its value is the label, and the tier's name where it has none.

    Annotations that only refer to others (symbolic tiers) have no time of their own and are passed over. The video is
    the first media file that the document names, else the document's own name.

    Raises:
        AnnotationError: It is not ELAN's XML; the message names the element.
    """
    document = _parse(content, place)
    video = _video(document, place)
    yield Row(place=place, video=video, segment=None)
    slots = _time_slots(document, place)
    for tier in document.iter("TIER"):
        name = tier.get("TIER_ID", "")
        for element in tier.iter("ALIGNABLE_ANNOTATION"):
            here = place.inside(f"tier {quoted(name)}, annotation {element.get('ANNOTATION_ID', '?')}")
            with here.excused():
                start, end = (_time(element, f"TIME_SLOT_REF{side}", slots, here) for side in (1, 2))
                label = " ".join((element.findtext("ANNOTATION_VALUE") or "").split()) or name
                yield Row(place=here, video=video, segment=instance(start, end, label, here))


def _parse(content: str, place: Place) -> ElementTree.Element:
    if "<!DOCTYPE" in content or "<!ENTITY" in content:  # entities can read other files or grow without bound
        raise place.error("the XML declares a document type or entities, which ELAN never does; it is not read.")
    try:
        document = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise place.inside(f"line {line}, column {column}").error(f"this is not XML ({error.msg}).") from None
    if document.tag != "ANNOTATION_DOCUMENT":
        raise place.error(f"found XML with the root {quoted(document.tag)}, expected ELAN's ANNOTATION_DOCUMENT.")
    return document


def _video(document: ElementTree.Element, place: Place) -> str:
    media = [each.get("MEDIA_URL") or each.get("RELATIVE_MEDIA_URL") for each in document.iter("MEDIA_DESCRIPTOR")]
    names = [name for name in (file_stem(address) for address in media if address) if name]
    return names[0] if names else place.path.stem


def _time_slots(document: ElementTree.Element, place: Place) -> dict[str, float]:
    """Seconds of each slot; slots without a time lie evenly between their neighbours, where ELAN shows them."""
    order = [slot for slot in document.iter("TIME_SLOT") if slot.get("TIME_SLOT_ID")]
    times = np.full(len(order), np.nan)
    for index, slot in enumerate(order):
        value = slot.get("TIME_VALUE")
        if value is not None:
            here = place.inside(f"time slot {slot.get('TIME_SLOT_ID')}")
            times[index] = number(value, here.inside("TIME_VALUE"), "milliseconds") / 1000
    known = np.flatnonzero(~np.isnan(times))
    if len(known):
        times = np.interp(np.arange(len(times)), known, times[known])
    return {slot.attrib["TIME_SLOT_ID"]: float(time) for slot, time in zip(order, times, strict=True)}


def _time(element: ElementTree.Element, reference: str, slots: dict[str, float], place: Place) -> float:
    name = element.get(reference)
    if name is None or name not in slots or slots[name] != slots[name]:
        raise place.inside(reference).error(f"found {quoted(name)}, expected one of the {len(slots)} time slots.")
    return slots[name]
