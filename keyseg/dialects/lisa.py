"""`lisa`: pixels to ignore count nowhere, an empty target left empty counts 1, first texts."""

from keyseg.dialects.dialect import Counted, Dialect, Masks, without_ignored


def count(masks: Masks) -> Counted:
    """One example."""
    return without_ignored(masks, empty=1.0)


DIALECT = Dialect(
    name="lisa",
    used_by="LISA, READ, LENS, X2SAM, AnchorSeg, KeySeg's released evaluation",
    source="LISA's public validation (https://github.com/dvlab-research/LISA)",
    count=count,
    texts="first",
    limits="refCOCO's polygons are summed there, so that where two overlap nothing ever matches; "
    "stored targets are their union",
)
