"""Several sweeps read as one, with each run counted once."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from keyseg.config import ConfigError, flatten
from keyseg.metrics import BY_NAME
from keyseg.report.stats.looks import JOINED
from keyseg.report.store import CellResult, Sweep, load, variants_of
from keyseg.runs.imported import IMPORTED
from keyseg.runs.run_directory import stored_config
from keyseg.runs.sweep_directory import label_of


def join(folders: Sequence[Path]) -> Sweep:
    """The cells of all sweeps, labelled by every factor that varies over them.

    A factor that a sweep did not vary is read from the frozen configs of its runs, "" where a run
    has none. Runs of one signature in several sweeps are one run. Contrasts are those that the
    sweeps declare; baseline and path are the first sweep's. Contrasts with cells of a sweep whose
    seeds come by looks go by its boundary (`stats.looks.by_contrast`). Cells of other systems keep
    their own label, and each of these systems is held against the baseline.
    """
    sweeps = [load(folder) for folder in folders]
    if len(sweeps) == 1:
        return sweeps[0]
    sweeps.sort(key=lambda s: IMPORTED in s.design)  # our own first: it is their question
    keys = list(dict.fromkeys(k for s in sweeps for cell in s.cells for k in cell.factors))
    cells: dict[str, CellResult] = {}
    for sweep, cell in ((s, c) for s in sweeps for c in s.cells):
        known = cells.get(cell.signature)
        if known is None or (known.status != "done" and cell.status == "done"):
            factors = (
                _of_import(cell, keys) if IMPORTED in sweep.design else _factors(sweep, cell, keys)
            )
            cells[cell.signature] = replace(cell, factors=factors)
    own = {k: _values((c for c in cells.values() if not c.imported), k) for k in keys}
    named = [k for k in keys if len(set(map(str, own[k]))) > 1] or keys[:1]
    labelled = [
        c
        if c.imported
        else replace(c, label=label_of({k: c.factors[k] for k in named if k in c.factors}))
        for c in cells.values()
    ]
    first = sweeps[0]
    base = first.baseline
    design = {
        **first.design,
        "name": "+".join(s.name for s in sweeps),
        "question": " ".join(str(s.design["question"]) for s in sweeps if s.design.get("question"))
        or None,
        "factors": {k: own[k] for k in named},
        "baseline": _factors(first, base.cells[0], keys) if base else {},
        "contrasts": _contrasts(sweeps, keys),
        "path": first.design.get("path") or [],
        "metrics": list(dict.fromkeys(m for s in sweeps for m in s.design.get("metrics") or [])),
        "margin": dict(ChainMap(*(s.design.get("margin") or {} for s in sweeps))),
        "published": list(dict.fromkeys(p for s in sweeps if (p := s.design.get("published")))),
        "looks": None,  # those of one sweep are no looks at all of them
        JOINED: [_part(s) for s in sweeps],
        "declared": None,
        "command": " ; ".join(str(s.design.get("command") or "not recorded") for s in sweeps),
    }
    return Sweep(first.directory, design, tuple(variants_of(labelled)))


def _part(sweep: Sweep) -> dict[str, Any]:
    """What `stats.looks` asks of each."""
    return {
        "name": sweep.name,
        "directory": str(sweep.directory),
        "looks": sweep.design.get("looks"),
        "signatures": [cell.signature for cell in sweep.cells],
    }


def _contrasts(sweeps: Sequence[Sweep], keys: Sequence[str]) -> list[Mapping[str, Any]]:
    """Those that are declared; where there are some, each system is held against the baseline."""
    declared = [e for s in sweeps for e in s.design.get("contrasts") or []]
    base = sweeps[0].baseline
    if not declared or base is None:
        return declared
    against = _factors(sweeps[0], base.cells[0], keys)
    systems = {v.label: v.cells[0] for s in sweeps if IMPORTED in s.design for v in s.variants}
    of = [{"of": _of_import(cell, keys), "against": against} for cell in systems.values()]
    return [*declared, *of]


def _of_import(cell: CellResult, keys: Sequence[str]) -> dict[str, Any]:
    """The factors of another system's cell: it has none of ours."""
    return {k: cell.factors.get(k, "") for k in keys}


def asked(sweep: Sweep, metrics: Sequence[str], baseline: Mapping[str, str]) -> Sweep:
    """The sweep with other metrics, or held against another baseline, as the command line asks.

    A baseline puts aside the declared contrasts and path: every variant is held against it.

    Raises:
        ConfigError: no such metric, or no variant with these factors; says what there is.
    """
    design = dict(sweep.design)
    for name in metrics:
        if name not in BY_NAME:
            near = get_close_matches(name, BY_NAME, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"--metric {name}: no such metric.{hint} One of {', '.join(BY_NAME)}")
    if metrics:
        design["metrics"] = list(metrics)
    if baseline:
        design |= {"baseline": dict(baseline), "contrasts": [], "path": []}
    changed = replace(sweep, design=design)
    known = {key for v in sweep.variants for key in v.factors}
    if baseline and (changed.baseline is None or not known.issuperset(baseline)):
        given = ",".join(f"{k}={v}" for k, v in baseline.items())
        labels = ", ".join(v.label for v in sweep.variants)
        raise ConfigError(f"--baseline {given}: no variant of the sweep; there are {labels}")
    return changed


def _factors(sweep: Sweep, cell: CellResult, keys: Sequence[str]) -> dict[str, Any]:
    """The values of all keys; without those that its own sweep dropped, as they cannot matter."""
    dropped = set(sweep.design.get("only_where") or {}).difference(cell.factors)
    lacking = [k for k in keys if k not in cell.factors and k not in dropped]
    config = _config(cell) if lacking else {}
    return {
        k: cell.factors.get(k, config.get(k, config.get(f"{k}.name", "")))
        for k in keys
        if k not in dropped
    }


def _values(cells: Iterable[CellResult], key: str) -> list[Any]:
    return list(dict.fromkeys(c.factors[key] for c in cells if key in c.factors))


def _config(cell: CellResult) -> dict[str, Any]:
    file = cell.directory / "config.yaml"
    if not file.exists():
        return {}
    return flatten(stored_config(file))
