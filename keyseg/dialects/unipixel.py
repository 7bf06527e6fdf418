"""`unipixel`: pixels to ignore are background, all texts."""

from keyseg.dialects.dialect import Areas, Counted, Dialect, overlap


def count(areas: Areas) -> Counted:
    """The examples with nothing to ignore."""
    return overlap(areas.predicted, areas.target, areas.hit, empty=1.0)


DIALECT = Dialect(
    name="unipixel",
    used_by="UniPixel",
    source="UniPixel's public reading of ReasonSeg",
    count=count,
    limits="what an empty target that is left empty counts there is not known to us: 1 is assumed",
)
