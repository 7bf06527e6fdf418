"""How the processes of pytest-xdist share the tests: a file is the work of one of them.

So what a file makes for its tests is made once, and what several files share is made once where
they are listed together. pytest-xdist's own marker `xdist_group` says so in a test's id, and pytest
9.2 ignores that: groups are told by the place of a file here.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    "tests/slurm/": "a private SLURM",
    "tests/test_extending.py": "a real sweep",
    "tests/browser/test_mlflow_page.py": "a real sweep",
}
"""What begins so, and what it shares."""


def shared(nodeid: str) -> str:
    """What a test shares with others: tests of which this is the same run in one process."""
    together = (name for place, name in TOGETHER.items() if nodeid.startswith(place))
    return next(together, nodeid.partition("::")[0])


def once(request: pytest.FixtureRequest, what: str) -> None:
    """Fail where two processes of one run make what they should share."""
    if request.config.getoption("loadgroup", default=False):
        run = request.getfixturevalue("tmp_path_factory").getbasetemp().parent
        try:
            (run / f"{what}.made").touch(exist_ok=False)
        except FileExistsError:
            pytest.fail(f"{what} is made in two processes: list their tests in {__file__}")


class Sharing(LoadScopeScheduling):  # type: ignore[misc]
    """Files in the order in which they were collected (tests/conftest.py), not by their tests."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return shared(nodeid)
