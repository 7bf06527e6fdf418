"""Which word is the keyword of a referring expression; the paper does not say.

category: the target's name in COCO. head_noun: the expression's own word for it, from a keyword
file or by rules. expression: the whole expression, which is what the released code trains on; its
first token is often "the" or "left".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keyseg.data.files import DataError, parsed
from keyseg.data.keywords.file import by_image
from keyseg.data.keywords.head_noun import head_noun

POLICIES = ("category", "head_noun", "expression")


@dataclass(frozen=True)
class Policy:
    """`name`: one of `POLICIES`. `known`: by image stem and expression, what a file says.

    Raises:
        DataError: the name is none of them, or a file is given to a policy that reads none.
    """

    name: str = "category"
    known: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise DataError(f"data.keyword={self.name}: must be one of {', '.join(POLICIES)}")

    @classmethod
    def of(cls, name: str, file: Path | None) -> Policy:
        """The policy, with the keywords of a file if it is to take them from there."""
        if file is not None and name != "head_noun":
            raise DataError(f"data.keyword_file={file} is read by data.keyword=head_noun only")
        return cls(name, parsed(by_image, file) if file else {})

    def keyword(self, image: Path, expression: str, category: str | None) -> str | None:
        """The keyword of one expression; None where it has none."""
        if self.name == "expression":
            return expression
        if self.name == "head_noun":
            known = self.known.get(image.stem, {})
            return known[expression] if expression in known else head_noun(expression)
        return category
