"""`lisa`: pixels to ignore count nowhere, an empty target left empty counts 1, first texts."""

from keyseg.dialects.dialect import Dialect, without_ignored

DIALECT = Dialect(
    name="lisa",
    used_by="LISA, READ, LENS, X2SAM, AnchorSeg, KeySeg's released evaluation",
    source="LISA's public validation (https://github.com/dvlab-research/LISA)",
    count=without_ignored,
    texts="first",
    limits="refCOCO's polygons are summed there, so that where two overlap nothing ever matches; "
    "stored targets are their union",
)
