"""`keyseg`: ours. As LISA's for one mask; every query that the run read counts, P@X is `>`."""

from keyseg.dialects.dialect import PRECISIONS, Dialect, without_ignored

OURS = "keyseg"
"""The name of the rule of our own tables."""

DIALECT = Dialect(
    name=OURS,
    used_by="this project's own tables",
    source="keyseg/metrics.py",
    count=without_ignored,
    scores=("giou", "ciou", *PRECISIONS, "n_acc", "t_acc"),
)
