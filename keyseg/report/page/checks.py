"""What a reader must know before the numbers: holes, and runs that do not compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keyseg.config import ConfigError
from keyseg.data.shared_parts import shared_parts
from keyseg.metrics import BY_NAME, ratios
from keyseg.report.stats import looks
from keyseg.report.stats.interventions import mixed_code, stale
from keyseg.report.store import CellResult, Sweep, shown
from keyseg.report.tables import runs
from keyseg.runs import code, drops
from keyseg.runs.provenance import SILENT, silence
from keyseg.runs.run_directory import stored_config
from keyseg.runs.titles import in_brief, title_of

ASKED = {"token_order": "model.tokens.order", "token_state": "model.tokens.state"}
"""Parts of a protocol that a sweep may vary on purpose, and the keys that do."""
TOLERANCE = 5e-4
"""Of a fraction: run.json may hold rounded values."""
_PARTS = 12
"""Definitions that are listed where the runs are not of one code."""


@dataclass(frozen=True)
class Notice:
    """One thing to know. `detail`: lines set as they are (an error, paths); may be empty."""

    title: str
    text: str
    detail: str = ""


def check(sweep: Sweep) -> list[Notice]:
    """All warnings, the gravest first."""
    return [
        *_looks(sweep),
        *_drops(sweep),
        *_holes(sweep),
        *_imported(sweep),
        *_silent(sweep),
        *_selected_on_test(sweep),
        *_mixed(sweep),
        *_code(sweep),
        *_unequal(sweep),
        *disagreements(sweep),
        *_stale_interventions(sweep),
        *_mixed_interventions(sweep),
        *_trainings(sweep),
        *_declared(sweep),
        *_seeds(sweep),
    ]


def _name(cell: CellResult) -> str:
    return f"{cell.label}, seed {cell.seed}"


def _names(cells: Iterable[CellResult]) -> str:
    """Of many cells: all variants, and what seeds of each."""
    return in_brief((title_of(cell.label, cell.seed) for cell in cells), labels=None)


def _looks(sweep: Sweep) -> Iterator[Notice]:
    if parts := looks.parts_by_looks(sweep):
        yield Notice(
            "Seeds by looks.",
            "These sweeps had seeds until the answer was in. Contrasts with their cells have the p "
            "over the looks of that sweep, corrected for all contrasts here, and follow its "
            "boundary. What its looks decided, and gave up, stands in its own report.",
            "\n".join(
                f"{p.of}: looks at {', '.join(map(str, p.plan.at))} seeds, {len(p.taken)} taken"
                + (", more to come: interim" if p.interim else "")
                for p in parts
            ),
        )
    stand = looks.standing(sweep)
    if stand is None:
        return
    if stand.interim:
        taken = len(stand.taken)
        done = f"{stand.where(taken)} is taken" if taken else "no look is taken yet"
        yield Notice(
            "Interim.",
            f"Seeds are still to come: {done}. Contrasts that are open have no verdict, and the "
            "others have that of the look that decided; what seeds show between two looks decides "
            "nothing.",
        )
    by = {cell.signature: cell for cell in sweep.cells}
    other = [
        f"{_name(by[signature])}: look {look.number}"
        for look in stand.taken
        for signature, digest in look.samples.items()
        if signature in by and by[signature] in sweep.finished
        if looks.samples_hash(by[signature].directory) != digest
    ]
    if other:
        yield Notice(
            "Decided on other results.",
            "These runs have other samples now than those that a look was taken of. Its decision "
            "stands; numbers here are those of today.",
            "\n".join(other),
        )


def _drops(sweep: Sweep) -> Iterator[Notice]:
    lines = [
        f"{drop.variant} at {each.steps} steps: {100 * drop.difference:.1f} points to "
        f"{drop.behind}, p = {drop.p:.2g}"
        for each in drops.read(sweep.directory)
        for drop in each.drops
    ]
    if lines and sweep.design.get("drop_behind"):
        yield Notice(
            "Not trained longer.",
            f"These variants were more than {sweep.design['drop_behind']:g} points behind another "
            "at a small budget, and have no cells at larger ones. Curves may cross: nothing is "
            "known of them there.",
            "\n".join(lines),
        )


def _declared(sweep: Sweep) -> Iterator[Notice]:
    first = sweep.design.get("declared") or {}
    seeds = {cell.seed for cell in sweep.cells}
    added = sorted(seeds.difference(first.get("seeds") or seeds))
    if added and not sweep.design.get("looks"):
        yield Notice(
            "Seeds were added.",
            "They were not in the design that was first submitted. Where they were added because "
            "of what the others showed, p is too small: it counts one look. `until=verdict` adds "
            "seeds with an error rate that holds.",
            f"added: {', '.join(map(str, added))}",
        )


def _holes(sweep: Sweep) -> Iterator[Notice]:
    for variant in sweep.variants:
        waiting: dict[str, list[CellResult]] = {}
        for cell in variant.cells:
            error = str(cell.info.get("error") or "").strip()
            last = error.splitlines()[-1] if error else "no error was recorded"
            if cell.status == "failed":
                yield Notice(f"Failed: {_name(cell)}.", last, f"log: {shown(cell.log_file)}")
            elif cell.status == "done" and cell not in sweep.finished and not cell.problems:
                yield Notice(
                    f"No samples: {_name(cell)}.", "The run is done, its samples are lost."
                )
            elif cell.status != "done" and not cell.problems:
                waiting.setdefault(cell.status, []).append(cell)
            for problem in cell.problems:
                yield Notice(f"Unreadable: {_name(cell)}.", problem, shown(cell.directory))
        # Said once of a variant, for there may be many of them in the middle of a sweep.
        for status, cells in waiting.items():
            noun = "seed" if len(cells) == 1 else "seeds"
            which = f"{variant.label}, {noun} {', '.join(str(c.seed) for c in cells)}"
            if status == "missing":
                several = "these cells; no run was started for them"
                one = "this cell; no run was started for it"
                text = f"The design has {one if len(cells) == 1 else several}."
                yield Notice(f"Missing: {which}.", text)
            else:
                logs = "\n".join(f"log: {shown(c.log_file)}" for c in cells if c.log_file.exists())
                yield Notice(f"Not finished: {which}.", f"Status: {status}.", logs)


def _imported(sweep: Sweep) -> Iterator[Notice]:
    others = [cell for cell in sweep.finished if cell.imported]
    if others:
        yield Notice(
            "Imported.",
            "Masks of other systems, made elsewhere and scored here like our own. How they were "
            "made is what somebody says; nothing of it was seen.",
            "\n".join(_origin(cell) for cell in others),
        )
    if detail := "\n".join(_other_targets(sweep, others)):
        yield Notice(
            "Other targets.",
            "These were scored against other masks than our own cells on the same examples: the "
            "data were read otherwise, and a difference is a difference of data.",
            detail,
        )


def _origin(cell: CellResult) -> str:
    origin = cell.imported
    left = int(origin.get("without") or 0)
    fate = "counted as empty masks" if origin.get("missing") == "empty" else "left out"
    without = f"; {left} examples without a prediction, {fate}" if left else ""
    return (
        f"{_name(cell)}: {origin.get('form')}, {origin.get('file')}, sha256 "
        f"{str(origin.get('sha256'))[:12]}, said by {origin.get('said_by')}{without}"
    )


def _other_targets(sweep: Sweep, others: Sequence[CellResult]) -> Iterator[str]:
    """Of cells whose targets are not those of the first cell of our own."""
    columns = ["target_rle", "ignore_rle", "height", "width"]
    ours = next((c for c in sweep.finished if not c.imported), None)
    if ours is None:
        return
    first = ours.samples.drop_duplicates("id").set_index("id").reindex(columns=columns)
    for cell in others:
        rows = cell.samples.drop_duplicates("id").set_index("id").reindex(columns=columns)
        common = rows.index.intersection(first.index)
        both = rows.loc[common].fillna(""), first.loc[common].fillna("")
        differ = int((both[0] != both[1]).any(axis=1).sum())
        if differ:
            yield f"{_name(cell)}: {differ} of {len(common)} examples"


def _silent(sweep: Sweep) -> Iterator[Notice]:
    rates = {_name(c): silence(c.info) for c in sweep.finished}
    silent = {name: rate for name, rate in rates.items() if rate >= SILENT}
    if silent:
        yield Notice(
            "Answers without SEG.",
            "Asked to write the answer themselves, these runs mostly write none with SEG, so they "
            "give no mask. Teacher-forced scores do not show that.",
            "\n".join(f"{name}: {100 * rate:.0f} %" for name, rate in silent.items()),
        )


def _selected_on_test(sweep: Sweep) -> Iterator[Notice]:
    """Runs whose best weights were chosen on examples that their scores are given for."""
    shared: dict[str, str] = {}  # a config takes a while to read, and most cells have the same data

    def on(cell: CellResult) -> str:
        same = json.dumps([cell.info.get("data_fingerprint"), _protocol(cell)], sort_keys=True)
        if same not in shared:
            shared[same] = ", ".join(_selected_on(cell))
        return shared[same]

    groups = _by(sweep.finished, on)
    groups.pop("", None)
    if groups:
        yield Notice(
            "Selected on the reported split.",
            "Val, on which the weights with the best gIoU were chosen, and test are the same "
            "examples, or share some: scores are too high, and more so for a variant whose val "
            "curve is noisy or was looked at more often.",
            _lines(groups),
        )


def _selected_on(cell: CellResult) -> list[str]:
    file = cell.directory / "config.yaml"
    try:
        data = stored_config(file).get("data") if file.exists() else {}
    except ConfigError:  # the notices of holes say so
        return []
    return shared_parts(data or {}, "val", "test")


def _mixed(sweep: Sweep) -> Iterator[Notice]:
    commits = sorted({commit for cell in sweep.cells for commit in cell.commits})
    if len(commits) > 1:
        by = [
            f"{commit[:10]}: {_names(c for c in sweep.cells if commit in c.commits)}"
            for commit in commits
        ]
        yield Notice(
            "Mixed commits.",
            "The runs were computed by different versions of the code: a difference between them "
            "may be a difference of code.",
            "\n".join(by),
        )
    dirty = [cell for cell in sweep.cells if cell.dirty]
    if dirty:
        yield Notice(
            "Uncommitted changes.",
            "The working tree differed from its commit; each run directory keeps the difference "
            f"as code.diff. Runs: {_names(dirty)}.",
        )


def _code(sweep: Sweep) -> Iterator[Notice]:
    """Definitions that are not the same for all cells, and those that today's code has changed."""
    parts = {cell.signature: code.parts_of(cell.directory) for cell in sweep.finished}
    seen: dict[str, dict[str, list[CellResult]]] = {}
    for cell in sweep.finished:
        for part, digest in parts[cell.signature].items():
            seen.setdefault(part, {}).setdefault(digest, []).append(cell)
    mixed = {part: by for part, by in seen.items() if len(by) > 1}
    resumed = [cell for cell in sweep.finished if len(cell.fingerprints) > 1]
    if mixed or resumed:
        shown_ = list(mixed.items())[:_PARTS]
        lines = [f"{part}: {' | '.join(map(_names, by.values()))}" for part, by in shown_]
        lines += [f"and {len(mixed) - _PARTS} more"] if len(mixed) > _PARTS else []
        lines += [f"other code after a checkpoint: {_names(resumed)}"] if resumed else []
        yield Notice(
            "Mixed code.",
            "Code that the runs depend on was not the same for all of them: a difference between "
            "them may be a difference of code.",
            "\n".join(lines),
        )
    changed = {c.signature: code.changes(c.info, c.directory) for c in sweep.finished}
    stale = [cell for cell in sweep.finished if changed[cell.signature]]
    if stale:
        yield Notice(
            "Stale.",
            "The code has changed since these runs; `stale=rerun` with the sweep's command runs "
            "them again.",
            _lines(_by(stale, lambda cell: code.listed(changed[cell.signature]))),
        )


def _by(
    cells: Iterable[CellResult], key: Callable[[CellResult], str]
) -> dict[str, list[CellResult]]:
    """Cells by what they have in common."""
    groups: dict[str, list[CellResult]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return groups


def _lines(groups: Mapping[str, Sequence[CellResult]]) -> str:
    return "\n".join(f"{value}: {_names(alike)}" for value, alike in groups.items())


_CHOOSE_DATA = ("data",), ("data.root", "data.prepare", "data.sources")
_CHOOSE_WEIGHTS = (
    ("model", "mask", "model/sam"),
    ("model.llava", "model.sam", "model.language", "model.mask", "model.init", "model.start"),
)
"""Groups and options of the config that say what is read, and from which weights a run starts."""


def _unequal(sweep: Sweep) -> Iterator[Notice]:
    ours = [cell for cell in sweep.finished if not cell.imported]

    def differ(key: Callable[[CellResult], str], cells: Sequence[CellResult] = ours) -> str:
        groups = _by(cells, key)
        return _lines(groups) if len(groups) > 1 else ""

    def differ_unasked(fact: str, groups: Collection[str], options: tuple[str, ...]) -> str:
        """Where it differs although no factor asks for it: one of the groups, or such an option."""

        def asked(cell: CellResult) -> str:
            chosen = {k: v for k, v in cell.factors.items() if k.startswith(options) or k in groups}
            return runs.words(chosen)

        alike: dict[str, list[CellResult]] = {}
        for cell in ours:
            alike.setdefault(asked(cell), []).append(cell)
        listed = (differ(lambda c: str(c.info.get(fact)), cells) for cells in alike.values())
        return "\n".join(lines for lines in listed if lines)

    stated = [_protocol(cell) for cell in ours]
    keys = [k for k in dict.fromkeys(k for s in stated for k in s) if _several(stated, k)]
    factors = {k for c in sweep.cells for k in c.factors}
    keys = [k for k in keys if ASKED.get(k) not in factors]
    if detail := differ(lambda c: runs.words({k: _protocol(c).get(k, "?") for k in keys})):
        yield Notice("Mixed protocols.", "The runs were not evaluated in one way.", detail)
    if detail := differ_unasked("data_fingerprint", *_CHOOSE_DATA):
        yield Notice("Mixed data.", "The runs did not read the same data.", detail)
    if detail := differ_unasked("weights_fingerprint", *_CHOOSE_WEIGHTS):
        yield Notice("Mixed weights.", "The runs did not start from the same backbones.", detail)
    if detail := differ(lambda c: f"{c.samples['id'].nunique()} examples", sweep.finished):
        yield Notice(
            "Unequal test examples.",
            "Contrasts use the examples that both sides have; the result table uses all of each.",
            detail,
        )


def _protocol(cell: CellResult) -> dict[str, Any]:
    stated = cell.info.get("protocol")
    return dict(stated) if isinstance(stated, Mapping) else {}


def _several(stated: Sequence[Mapping[str, Any]], key: str) -> bool:
    return len({json.dumps(s.get(key), sort_keys=True) for s in stated}) > 1


def disagreements(sweep: Sweep) -> Iterator[Notice]:
    """Runs whose run.json sums up other scores than their samples give, or samples without any."""
    for cell in sweep.finished:
        terms = cell.terms
        lost = int((~np.isfinite(cell.samples["iou"].astype(float))).sum())
        if lost:
            yield Notice(f"No IoU: {_name(cell)}.", f"{lost} samples are left out of every score.")
        for protocol, rows in terms.groupby(cell.samples["protocol"]):
            values = ratios(rows.sum().to_numpy())
            for name, value in zip(BY_NAME, values, strict=True):
                stated = cell.summary(str(protocol), name)
                if np.isfinite(stated) and not abs(stated - value) <= TOLERANCE:
                    yield Notice(
                        f"Summary and samples disagree: {_name(cell)}.",
                        f"{protocol} {name} is {stated:.4f} in run.json and {value:.4f} from "
                        "samples.parquet; tables here use the samples.",
                    )


def _trainings(sweep: Sweep) -> Iterator[Notice]:
    ours = [v for v in sweep.variants if v.finished and not v.imported]
    if detail := "\n".join(f"{v.label}: {v.training}" for v in ours if not v.at_plateau):
        yield Notice(
            "Not at a plateau.",
            "These trainings were not seen to have converged. A contrast with one of them speaks "
            "of the steps that were trained, not of the variant; with one that never left the "
            "untrained level it says nothing. More optim.steps, or more evaluations "
            "(optim.eval_every), tell more.",
            detail,
        )


def _stale_interventions(sweep: Sweep) -> Iterator[Notice]:
    cells = [cell for cell in sweep.finished if stale(cell)]
    if cells:
        yield Notice(
            "Interventions on other weights.",
            "These runs were trained anew since; their interventions are left out. `keyseg "
            f"intervene` reads them again. Runs: {_names(cells)}.",
        )


def _mixed_interventions(sweep: Sweep) -> Iterator[Notice]:
    mixed = [v.label for v in sweep.variants if mixed_code(v)]
    if mixed:
        yield Notice(
            "Interventions by several versions of the code.",
            "Not all kinds and seeds were read by the same code, so that a difference may be the "
            "code's. `keyseg intervene` reads again what is of another version than today's: "
            f"{', '.join(mixed)}.",
        )


def _seeds(sweep: Sweep) -> Iterator[Notice]:
    finished = {cell.seed for cell in sweep.finished if not cell.imported}
    if len(finished) == 1:
        yield Notice(
            "One seed.",
            "Intervals here are those of the test examples. How much a score moves when the same "
            "variant is trained again with another seed is not measured, and can be larger: one "
            "seed cannot show that a variant is better, only that these weights are. Add seeds "
            "with seed=0,1,2.",
        )
