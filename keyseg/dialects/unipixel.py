"""`unipixel`: pixels to ignore are background, all texts."""

from keyseg.dialects.dialect import Counted, Dialect, Masks, overlap


def count(masks: Masks) -> Counted:
    """One example."""
    return overlap(masks.predicted, masks.target, empty=1.0)


DIALECT = Dialect(
    name="unipixel",
    used_by="UniPixel",
    source="UniPixel's public reading of ReasonSeg",
    count=count,
    limits="what an empty target that is left empty counts there is not known to us: 1 is assumed",
)
