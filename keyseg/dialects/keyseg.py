"""`keyseg`: ours. As LISA's for one mask; every query that the run read counts, P@X is `>`."""

from keyseg.dialects.dialect import PRECISIONS, Dialect, without_ignored

DIALECT = Dialect(
    name="keyseg",
    used_by="this project's own tables",
    source="keyseg/metrics.py",
    count=without_ignored,
    scores=("giou", "ciou", *PRECISIONS),
)
