"""No encoding of a terminal, a log or a locale ends a command."""

import os
import subprocess
import sys

import pytest

from keyseg.config import PROJECT

PLACES = {
    "a terminal in ASCII": {"PYTHONIOENCODING": "ascii"},
    "a C locale": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "both": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0",
             "PYTHONIOENCODING": "ascii"},
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_sweep_and_its_status(place, tmp_path):
    """Names and files with letters of their own, run by a worker of the same environment."""
    environment = {**os.environ, **PLACES[place], "MLFLOW_TRACKING_URI": "none"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            env=environment,
            cwd=tmp_path,
            timeout=300,
            check=False,
        )
        said = done.stdout.decode("ascii", "replace") + done.stderr.decode("ascii", "replace")
        assert done.returncode == 0, said
        assert "UnicodeEncodeError" not in said
        return said

    stub = PROJECT / "tests" / "sweep" / "analytic_worker.py"
    outputs = tmp_path / "Größe"
    launcher = f"hydra.launcher.worker=[{sys.executable},-S,-E,'{stub}']"
    said = run(
        str(PROJECT / "run.py"),
        "-m",
        "name=t",
        "loss.bce=1,2",
        launcher,
        "hydra.launcher.report=false",
        "hydra.launcher.prepare=false",
        f"paths.outputs='{outputs}'",
        "data.keyword_file='wörter.json'",
    )
    assert "test split" in said
    assert "t" in run("-m", "keyseg", "--outputs", str(outputs), "status", "t")
