"""Nodes on which cells fail one after the other while others do well: the next jobs avoid them."""

from __future__ import annotations

IN_A_ROW = 2
"""Cells that must have failed on a node, with none done there in between."""


class Nodes:
    """How the last cells ended on each node.

    An error of the code fails everywhere, so a node is left out only where the cell that ended last
    on some other node was done.
    """

    def __init__(self, given: str | None = None) -> None:
        """`given`: what the user has left out, as sbatch takes it."""
        self.avoided: list[str] = []
        """Nodes that are left out, in the order in which that was seen."""
        self._given = given
        self._failed: dict[str, int] = {}

    def note(self, node: str, *, done: bool) -> list[str]:
        """A cell ended on a node; the nodes that are left out from now on."""
        self._failed[node] = 0 if done else self._failed.get(node, 0) + 1
        if 0 not in self._failed.values():
            return []
        bad = [
            name
            for name, count in self._failed.items()
            if count >= IN_A_ROW and name not in self.avoided
        ]
        self.avoided += bad
        return bad

    @property
    def exclude(self) -> str | None:
        """What `sbatch --exclude` is told."""
        return ",".join([*([self._given] if self._given else []), *self.avoided]) or None
