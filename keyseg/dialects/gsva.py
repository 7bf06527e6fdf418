"""`gsva`: gRefCOCO's rules with `>=`; a [REJ] token says that there is no target."""

import operator

from keyseg.dialects.dialect import PRECISIONS, Counted, Dialect, Masks, with_no_target


def count(masks: Masks) -> Counted:
    """One example; gRefCOCO has no pixels to ignore."""
    return with_no_target(masks)


DIALECT = Dialect(
    name="gsva",
    used_by="GSVA",
    source="GSVA's public gRefCOCO evaluation",
    count=count,
    reaches=operator.ge,
    precision_of_targets=True,
    scores=("giou", "ciou", *PRECISIONS, "n_acc", "t_acc"),
    limits="there a pixel belongs to the mask at logit >= 0 and [REJ] empties it; here at > 0, and "
    "an empty mask says so itself",
)
