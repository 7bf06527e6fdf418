"""Do the intervals cover and the verdicts hold? Simulation on results with a known truth.

    python benchmarks/coverage.py                 1, 3, 5 and 10 seeds in seven worlds (minutes)
    python benchmarks/coverage.py --repeats 4000
    python benchmarks/coverage.py --skip 11       goes on where a run stopped after 11 lines

The alternatives in the same run: the usual hierarchical bootstrap, which draws seeds and images
("naive both"), and in worlds where trainings collapse Student's t that does not tell them apart.
Wanted: coverage of 0.93 to 0.97, and sweeps with a false claim at most 0.05, give or take the
Monte Carlo error: its standard error is printed above the tables. The last line is one JSON object
with every figure.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # processes share the cores already
    os.environ[threads] = "1"

from keyseg.report.stats.simulation import alike, apart, coverage  # noqa: E402
from keyseg.report.stats.synthetic import METRICS, World  # noqa: E402

NORMAL = {
    "usual": World(),
    "few images": World(images=50),
    "seeds rule": World(images=100, tau=0.15),
    "no seed effect": World(images=100, tau=0.0),
}
COLLAPSE = {
    "3 % of one side collapse": World(images=100, collapse=(0.0, 0.03)),
    "20 % of one side collapse": World(images=100, collapse=(0.0, 0.2)),
    "10 % of both collapse": World(images=100, collapse=(0.1, 0.1)),
}
WORLDS = NORMAL | COLLAPSE
BY_SOURCE = ("images", "seeds", "both", "main effect", "interaction", "naive both")
APART = ("succeeded", "all", "given all", "not told apart")
CLAIMS = ("false better", "false no difference", "alike shown")

Job = tuple[str, int, int, int, int]


def cell(job: Job) -> dict[str, float]:
    """Coverage and claims of one world and number of seeds."""
    name, seeds, repeats, resamples, seed = job
    world = WORLDS[name]
    found = coverage(seeds, repeats, seed=seed, resamples=resamples, naive=True, world=world)
    made: dict[str, Any] = {"seed": seed, "resamples": resamples, "world": world}
    # Weights of one seed are truly alike only where there is no seed effect.
    if seeds > 1 or world.tau == 0:
        claims = alike(seeds, repeats, **made)
        found |= {f"false better {metric}": share for metric, share in claims.false.items()}
        found |= {f"alike shown {metric}": share for metric, share in claims.right.items()}
    if seeds > 1:  # one seed never says that there is no difference
        wrong = apart(seeds, repeats, **made).false
        found |= {f"false no difference {metric}": share for metric, share in wrong.items()}
    return found


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
    asked = [
        *((name, seeds) for name in NORMAL for seeds in options.seeds),
        *((name, seeds) for name in COLLAPSE for seeds in options.seeds if seeds > 1),
    ]
    jobs = [
        (name, seeds, repeats, options.resamples, options.seed + k)
        for k, (name, seeds) in enumerate(asked)
    ][options.skip :]
    print(f"{repeats} sweeps a line, seed {options.seed}; each entry: {', '.join(METRICS)}, %")
    error = 100 * (0.05 * 0.95 / repeats) ** 0.5
    print(f"standard error of a share near 5 or 95 %: {error:.1f} points")
    figures = []
    with ProcessPoolExecutor(options.processes) as pool:
        for job, found in _lines(jobs, pool.map(cell, jobs)):
            figures.append({"world": job[0], "seeds": job[1], **found})
    spent = round(time.perf_counter() - start, 1)
    facts = {"repeats": repeats, "resamples": options.resamples, "seed": options.seed}
    print()
    print(json.dumps({**facts, "standard_error": error / 100, "seconds": spent, "lines": figures}))


def _lines(
    jobs: Sequence[Job], results: Iterator[dict[str, float]]
) -> Iterator[tuple[Job, dict[str, float]]]:
    """The jobs with their results, each printed as it comes; a table for either kind of world."""
    before: tuple[str, ...] = ()
    for job, found in zip(jobs, results, strict=True):
        columns = (*(APART if job[0] in COLLAPSE else BY_SOURCE), *CLAIMS)
        if columns != before:
            print("\n| world | seeds |", " | ".join(columns), "|")
            print("|---|--:|" + "---|" * len(columns))
            before = columns
        entries = []
        for column in columns:
            names = [column] if column in found else [f"{column} {metric}" for metric in METRICS]
            shares = [found.get(name) for name in names]
            entries.append(" / ".join("–" if x is None else f"{100 * x:.1f}" for x in shares))
        print(f"| {job[0]} | {job[1]} |", " | ".join(entries), "|", flush=True)
        yield job, found


if __name__ == "__main__":
    main()
