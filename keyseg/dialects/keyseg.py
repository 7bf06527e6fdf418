"""`keyseg`: ours. As LISA's for one mask; every query that the run read counts, P@X is `>`."""

from keyseg.dialects.dialect import PRECISIONS, Counted, Dialect, Masks, without_ignored


def count(masks: Masks) -> Counted:
    """One example."""
    return without_ignored(masks, empty=1.0)


DIALECT = Dialect(
    name="keyseg",
    used_by="this project's own tables",
    source="keyseg/metrics.py",
    count=count,
    scores=("giou", "ciou", *PRECISIONS),
)
