"""Do the intervals cover and the verdicts hold? Simulation on results with a known truth.

    python benchmarks/coverage.py                 1, 3, 5 and 10 seeds in four worlds (minutes)
    python benchmarks/coverage.py --repeats 4000
    python benchmarks/coverage.py --skip 11       goes on where a run stopped after 11 lines

The alternative in the same run is the usual hierarchical bootstrap, which draws seeds and images
("naive both"). Wanted: 0.93 to 0.97, and false claims at most 0.05, give or take the Monte Carlo
error: two standard errors of a share are printed beside the table. The last line is one JSON
object with every figure.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # processes share the cores already
    os.environ[threads] = "1"

from keyseg.report.stats.synthetic import METRICS, World, coverage, false_claims  # noqa: E402

WORLDS = {
    "usual": World(),
    "few images": World(images=50),
    "seeds rule": World(images=100, tau=0.15),
    "no seed effect": World(images=100, tau=0.0),
}
SOURCES = ("images", "seeds", "both", "naive both")
CLAIM = "false claims"


def cell(job: tuple[str, int, int, int, int]) -> dict[str, float]:
    """Coverage and false claims of one world and number of seeds."""
    name, seeds, repeats, resamples, seed = job
    world = WORLDS[name]
    held = coverage(seeds, repeats, seed=seed, resamples=resamples, naive=True, world=world)
    # Weights of one seed are truly alike only where there is no seed effect.
    if seeds > 1 or world.tau == 0:
        made: dict[str, Any] = {"seed": seed, "resamples": resamples, "world": world}
        wrong = false_claims(seeds, repeats, **made)
        held |= {f"{CLAIM} {metric}": share for metric, share in wrong.items()}
    return held


def main() -> None:
    """Print a line a world and number of seeds: a share for each of the metrics, by source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000, help="synthetic sweeps a line")
    parser.add_argument("--resamples", type=int, default=999)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="lines at the top that are left out")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    repeats, start = options.repeats, time.perf_counter()
    jobs = [
        (name, seeds, repeats, options.resamples, options.seed + k)
        for k, (name, seeds) in enumerate((n, s) for n in WORLDS for s in options.seeds)
    ][options.skip :]
    print(f"{repeats} sweeps a line, seed {options.seed}; each entry: {', '.join(METRICS)}, %")
    error = 100 * (0.05 * 0.95 / repeats) ** 0.5
    print(f"standard error of a share near 5 or 95 %: {error:.1f} points\n")
    print("| world | seeds |", " | ".join((*SOURCES, CLAIM)), "|")
    print("|---|--:|" + "---|" * (len(SOURCES) + 1))
    figures = []
    with ProcessPoolExecutor(options.processes) as pool:
        for (name, seeds, *_), found in zip(jobs, pool.map(cell, jobs), strict=True):
            entries = []
            for source in (*SOURCES, CLAIM):
                shares = [found.get(f"{source} {metric}") for metric in METRICS]
                entries.append(" / ".join("–" if x is None else f"{100 * x:.1f}" for x in shares))
            print(f"| {name} | {seeds} |", " | ".join(entries), "|", flush=True)
            figures.append({"world": name, "seeds": seeds, **found})
    spent = round(time.perf_counter() - start, 1)
    facts = {"repeats": repeats, "resamples": options.resamples, "seed": options.seed}
    print(json.dumps({**facts, "standard_error": error / 100, "seconds": spent, "lines": figures}))


if __name__ == "__main__":
    main()
