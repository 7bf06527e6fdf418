"""What does it save to stop when the answer is in, and does the error rate hold? Simulation.

    python benchmarks/sequential.py                  five worlds, 1, 4 and 12 contrasts (minutes)
    python benchmarks/sequential.py --repeats 2000

Looks at 3, 4, 6, 8 and 10 seeds with three ways to spend the level, beside the usual designs of 3,
5 and 10 seeds for everyone; the same draws are read by all. Three questions are put to each world:
variants that are all alike (no verdict of a difference is right), variants that differ by exactly
the margin (none of equivalence is), and a mix: half alike, a quarter 2.5 points apart, a quarter 10
(of one contrast: 10), with a margin of 5 points. The last line is one JSON object.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # processes share the cores already
    os.environ[threads] = "1"

import numpy as np  # noqa: E402

from keyseg.report.stats.sequential_simulation import (  # noqa: E402
    MIX_MARGIN,
    MIX_WIDE,
    Endings,
    Read,
    fixed,
    mix,
    read,
    stopped,
)
from keyseg.report.stats.simulation import PLAIN  # noqa: E402
from keyseg.report.stats.synthetic import GAP, MU, World, draw, gap  # noqa: E402
from keyseg.runs.looks import DIFFERS, EQUIVALENT, FAMILIES, FUTILE, LOOKS  # noqa: E402

WORLDS = {
    "usual": World(),
    "few images": World(images=50),
    "seeds rule": World(images=100, tau=0.15),
    "no seed effect": World(images=100, tau=0.0),
    "10 % of both collapse": World(images=100, collapse=(0.1, 0.1)),
}
FIXED = (3, 5, 10)
DESIGNS = (*(f"{n} seeds" for n in FIXED), *FAMILIES)
COLUMNS = {
    "false difference": "sweeps, all alike, in which any contrast is called different",
    "false equivalence": "sweeps, all at the margin, in which any is called smaller than it",
    "10 points found": "contrasts 10 points apart that are called different",
    "alike shown": "alike contrasts that are called equivalent",
    "given up": "contrasts of the mix that are called futile",
    "cells": "of the mix, of those of 10 seeds for everyone",
}

Job = tuple[str, int, int, int]


def cell(job: Job) -> dict[str, dict[str, float]]:
    """Every design's figures in a world with so many contrasts, by `COLUMNS`."""
    name, contrasts, repeats, seed = job
    world = WORLDS[name]
    every = range(contrasts)
    alike, near, far = mix(contrasts)
    shift = np.array([MIX_WIDE if k in far else GAP if k in near else 0.0 for k in every])
    truth = gap(draw([MU, MU + MIX_WIDE], 1, world, np.random.default_rng(0)).both, PLAIN)[0]
    margin = [MIX_MARGIN] * contrasts
    null = read([MU] * (contrasts + 1), margin, world, repeats, seed)
    edge = read([MU, *[MU + MIX_WIDE] * contrasts], [truth] * contrasts, world, repeats, seed + 1)
    mixed = read([MU, *(MU + shift)], margin, world, repeats, seed + 2)
    whole = LOOKS[-1] * (contrasts + 1)
    return {
        design: {
            "false difference": _ended(null, design).some(DIFFERS, every),
            "false equivalence": float(_ended(edge, design).small.any(1).mean()),
            "10 points found": (ended := _ended(mixed, design)).each(DIFFERS, far),
            "alike shown": ended.each(EQUIVALENT, alike) if alike else float("nan"),
            "given up": ended.each(FUTILE, every),
            "cells": ended.cells / whole,
        }
        for design in DESIGNS
    }


def _ended(seen: Read, design: str) -> Endings:
    return stopped(seen, design) if design in FAMILIES else fixed(seen, int(design.split()[0]))


def main() -> None:
    """Print a line a world, number of contrasts and design."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=500, help="synthetic sweeps a question")
    parser.add_argument("--contrasts", type=int, nargs="+", default=[1, 4, 12])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    start = time.perf_counter()
    jobs = [
        (name, contrasts, options.repeats, options.seed + 10 * k)
        for k, (name, contrasts) in enumerate((n, c) for n in WORLDS for c in options.contrasts)
    ]
    print(f"{options.repeats} sweeps a question, looks at {', '.join(map(str, LOOKS))} seeds; %")
    for column, meaning in COLUMNS.items():
        print(f"  {column}: {meaning}")
    error = (0.05 * 0.95 / options.repeats) ** 0.5
    print(f"standard error of a share near 5 %: {100 * error:.1f} points\n")
    print("| world | contrasts | design |", " | ".join(COLUMNS), "|")
    print("|---|--:|---|" + "--:|" * len(COLUMNS))
    figures = []
    with ProcessPoolExecutor(options.processes) as pool:
        for (name, contrasts, *_), shares in zip(jobs, pool.map(cell, jobs), strict=True):
            for design, row in shares.items():
                entries = [f"{100 * x:.1f}" if x == x else "–" for x in row.values()]
                print(f"| {name} | {contrasts} | {design} |", " | ".join(entries), "|", flush=True)
                known = {column: x for column, x in row.items() if x == x}
                figures.append({"world": name, "contrasts": contrasts, "design": design, **known})
    facts = {"repeats": options.repeats, "looks": LOOKS, "seed": options.seed}
    spent = round(time.perf_counter() - start, 1)
    print()
    print(json.dumps({**facts, "standard_error": error, "seconds": spent, "lines": figures}))


if __name__ == "__main__":
    main()
