"""What the statistics of a large report cost: time, memory, start.

    python benchmarks/report.py                  200 runs x 5,000 examples, 10,000 resamples
    python benchmarks/report.py --runs 20 --examples 1000

Every score of every variant and slice, and every contrast with all its intervals and p values;
files are not read and nothing is drawn (`--figures` draws all figures and says what they add).
Wanted on 2 cores: under 60 s and 2 GB, and a start within 2 s. The alternative, measured in the
same run on one contrast, is `scipy.stats.bootstrap` on two columns of per-image sums with as many
resamples; times the number of intervals that the report gives. The last line is one JSON object
with every figure.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from keyseg.metrics import MEASURES
from keyseg.report.stats.resamples import RESAMPLES
from keyseg.report.stats.scores import contrasts, scores, slices
from keyseg.report.store import CellResult, Sweep, VariantResult

STYLES = ("short", "short+location", "long", "reasoning")


def samples(examples: int, rng: np.random.Generator, skill: float) -> pd.DataFrame:
    """Rows as a run leaves them, two expressions an image, without stored masks."""
    order = np.arange(examples)
    union = 1000 + 37 * (order % 97)
    iou = np.clip(rng.normal(skill, 0.25, examples), 0, 1)
    return pd.DataFrame(
        {
            "id": [f"e{i}" for i in order],
            "image_id": [f"i{i // 2}" for i in order],
            "protocol": "teacher_forced",
            "iou": iou,
            "intersection": (iou * union).round(),
            "union": union,
            "keyword": "ring",
            "keyword_rank": rng.integers(0, 3, examples),
            "has_seg": True,
            "has_key": True,
            "height": 128,
            "width": 128,
            "slice_style": [STYLES[i % 4] for i in order],
            "slice_size": [("small", "medium", "large")[i % 3] for i in order],
        }
    )


def sweep(variants: int, seeds: int, examples: int) -> Sweep:
    """A finished sweep in memory."""
    rng = np.random.default_rng(0)
    empty = pd.DataFrame({name: [] for name in ("name", "value", "step", "time")})
    made = []
    for v in range(variants):
        cells = []
        for s in range(seeds):
            rows = samples(examples, rng, 0.5 + 0.004 * v)
            facts = (f"v{v}", {"fusion": f"v{v}"}, s, Path(), "done", {"minutes": 5.0})
            cells.append(CellResult(f"{v}-{s}", *facts, empty, rows))
        made.append(VariantResult(f"v{v}", v, {"fusion": f"v{v}"}, tuple(cells)))
    return Sweep(Path(), {"baseline": {"fusion": "v0"}, "metrics": ["giou", "ciou"]}, tuple(made))


def alternative(images: int) -> float:
    """Seconds of one interval of a paired difference of ratios by `scipy.stats.bootstrap`."""
    rng = np.random.default_rng(0)
    columns = tuple(rng.random(images) for _ in range(4))
    start = time.perf_counter()
    scipy_stats.bootstrap(
        columns,
        lambda a, b, c, d, axis=-1: c.sum(axis) / d.sum(axis) - a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=200,
        rng=rng,
    )
    return time.perf_counter() - start


def first_output() -> float:
    """Seconds until the command line answers."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "keyseg", "report", "--help"], check=True, stdout=-3)
    return time.perf_counter() - start


def peak() -> float:
    """GB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--figures", action="store_true", help="also draw every figure")
    options = parser.parse_args()
    facts: dict[str, object] = {**vars(options), "resamples": RESAMPLES, "start": first_output()}
    print(f"start: {facts['start']:.2f} s", flush=True)

    def timed(name: str, work: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        start, cpu = time.perf_counter(), time.process_time()
        found = work()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"{name}: {len(found)} rows, {wall:.1f} s ({cpu:.1f} s of CPU)", flush=True)
        facts[name] = {"rows": len(found), "seconds": wall, "cpu_seconds": cpu}
        return found

    made = sweep(options.runs // options.seeds, options.seeds, options.examples)
    facts["data_gb"] = peak()
    print(f"the runs' samples in memory: {facts['data_gb']:.2f} GB", flush=True)
    measured = timed("scores", lambda: scores(made, 0))
    held = timed("contrasts", lambda: contrasts(made, 0))
    facts["peak_gb"] = peak()
    print(f"peak memory: {facts['peak_gb']:.2f} GB", flush=True)
    if options.figures:
        from keyseg.report.data import ReportData
        from keyseg.report.figures import drawing

        data = ReportData(made, measured, held, slices(made))

        def draw() -> pd.DataFrame:
            with tempfile.TemporaryDirectory() as folder:
                return pd.DataFrame(list(drawing.draw_all(data, Path(folder))))

        timed("figures", draw)
        facts["peak_gb_with_figures"] = peak()
    one, intervals = alternative(options.examples // 2), len(held) + len(measured)
    facts |= {"scipy_seconds_an_interval": one, "intervals": intervals}
    print(
        f"scipy.stats.bootstrap: {one:.2f} s for one interval, so {one * intervals / 60:.0f} min "
        f"for the {intervals} given here ({len(MEASURES)} measures)"
    )
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
