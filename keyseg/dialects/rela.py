"""`rela`: gRefCOCO's rules; P@X is `>=`, over expressions with a target only."""

import operator

from keyseg.dialects.dialect import PRECISIONS, Dialect, with_no_target

DIALECT = Dialect(
    name="rela",
    used_by="ReLA, RMSIN",
    source="ReLA's public gRefCOCO evaluation",
    count=with_no_target,
    reaches=operator.ge,
    precision_of_targets=True,
    scores=("giou", "ciou", *PRECISIONS, "n_acc", "t_acc"),
    limits="there a classifier says that there is no target; here an empty mask does",
)
