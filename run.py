"""The Hydra app: one run, or a sweep of them with -m. `python run.py --help` explains it."""

import os
import sys

import hydra
from omegaconf import DictConfig

from keyseg.runs.text_encoding import in_utf8
from keyseg.sweep.overrides import one_line_errors, plain_flags, whole_mappings

# Hydra then raises errors instead of printing them: ours are one line, bugs show a traceback.
os.environ.setdefault("HYDRA_FULL_ERROR", "1")


@hydra.main(version_base="1.3", config_path="experiments", config_name="config")
def app(cfg: DictConfig) -> None:
    """Run one cell; sweeps go to the launcher."""
    from keyseg.sweep.single import run_single

    run_single(cfg)


if __name__ == "__main__":
    in_utf8()
    sys.argv[1:] = whole_mappings(plain_flags(sys.argv[1:]))
    with one_line_errors(sys.argv[1:]):
        app()
