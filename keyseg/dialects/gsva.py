"""`gsva`: as `rela`, but a [REJ] token says that there is no target."""

from dataclasses import replace

from keyseg.dialects import rela

DIALECT = replace(
    rela.DIALECT,
    name="gsva",
    used_by="GSVA",
    source="GSVA's public gRefCOCO evaluation",
    by_token=True,
    limits="there a pixel belongs to the mask at logit >= 0 and [REJ] empties it; here at > 0, and "
    "an empty mask says so itself where a run has nothing else for it (model.tokens.no_target)",
)
