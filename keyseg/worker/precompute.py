"""Frozen features, computed once for all cells before they start.

    python -m keyseg.worker.precompute RUN_DIR ...

Cells fill in what is missing in any case. This is for jobs that start at the same time and would
all compute the same: a sweep on a cluster has them wait for one job that does it
(`hydra.launcher.features`). Nothing here loads torch at import time.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from keyseg.config import RunConfig, resolve_path
from keyseg.runs.run_directory import RunDirectory


def wanted(cfg: RunConfig) -> bool:
    """Whether a run keeps features, and nobody has said that all of them are there."""
    stored = cfg.runtime.features and cfg.model.init != "random"
    return stored and not marker(cfg).exists()


def marker(cfg: RunConfig) -> Path:
    """A file that says that all features of a config's images were computed once.

    It lies among them, and goes with them. Should it be wrong, the cells compute what is missing.
    """
    choice = cfg.model
    names = (choice.language_weights, choice.mask_weights, choice.sam_type, choice.attention)
    sides = (choice.language, choice.mask, choice.clip_view, choice.precision, choice.frozen)
    key = json.dumps([cfg.data, *names, *sides], sort_keys=True)
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    return resolve_path(cfg.paths.data) / "features" / f"filled-{name}"


def fill(cfg: RunConfig) -> str:
    """Compute the features of all images of a config that the store lacks; what came of it.

    Raises:
        DataError: the data cannot be read. WeightsError: an encoder is missing or broken.
    """
    from keyseg.data import reading
    from keyseg.train.build import build_features
    from keyseg.train.device import pick_device
    from keyseg.worker.run import set_threads

    set_threads(cfg)
    data = reading.read(cfg.data)
    sources = (*data.train, *data.val, *data.test)
    images = list(dict.fromkeys(e.image for source in sources for e in source.examples))
    features = build_features(cfg, pick_device(cfg.runtime.device))
    for _ in features.fill(features.missing(images)):
        pass
    store = features.store
    if store is not None and store.problem is None:
        marker(cfg).parent.mkdir(parents=True, exist_ok=True)
        marker(cfg).touch()
    problem = f"; not all are stored: {store.problem}" if store and store.problem else ""
    return f"{len(images)} images: {features.computed} features computed{problem}"


def main() -> int:
    """Exit code 1 if something of it could not be done."""
    failed = False
    for path in sys.argv[1:]:
        cfg = RunDirectory(path).config
        if wanted(cfg):
            try:
                print(f"{path}: {fill(cfg)}", flush=True)
            except Exception as error:  # the cells will say so too, each for itself
                failed = True
                print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
