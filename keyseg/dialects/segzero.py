"""`segzero`: pixels to ignore are part of the target, nothing on nothing counts 0, first texts."""

from keyseg.dialects.dialect import Areas, Counted, Dialect, overlap


def count(areas: Areas) -> Counted:
    """The examples with a target that is larger by what is to be ignored."""
    target, hit = areas.target + areas.ignored, areas.hit + areas.on_ignored
    return overlap(areas.predicted, target, hit, empty=0.0)


DIALECT = Dialect(
    name="segzero",
    used_by="Seg-Zero, VisionReasoner and later systems on their copies of ReasonSeg",
    source="Seg-Zero's public evaluation script and data sets",
    count=count,
    texts="first",
    scores=("giou",),
    limits="there, masks are drawn at 840 x 840 and resized; here they have the image's own size",
)
