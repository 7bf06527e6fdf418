"""Benchmarks that nobody can run on a small machine still have to run."""

import json
import subprocess
import sys

from keyseg.config import PROJECT


def test_full_size_at_a_small_size():
    command = [sys.executable, PROJECT / "benchmarks" / "full_size.py", "--model", "tiny"]
    small = ["--steps", "1", "--variants", "full", "--device", "cpu"]
    done = subprocess.run([*command, *small], capture_output=True, text=True, check=True)
    assert not done.stderr
    [found] = json.loads(done.stdout.splitlines()[-1])["results"]
    assert found["variant"] == "full"
    assert found["seconds_per_step"][0] > 0 < found["seconds_per_step_stored"][0]
    assert abs(sum(found["share"].values()) - 1) < 0.01
