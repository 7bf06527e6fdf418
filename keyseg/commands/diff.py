"""`keyseg diff RUN RUN`: two runs side by side: config, code, data, versions, numbers."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from keyseg.config import ConfigError, flatten, resolve_path
from keyseg.runs import code
from keyseg.runs.finding import HELP, find_run
from keyseg.runs.provenance import cost_unit, hours
from keyseg.runs.run_directory import RunDirectory, stored_config

# `metrics` is imported late: it loads numpy, and every other command would wait for it.

_ABSENT = "-"
_MARKS = "-+"
"""The first run and the second, where there is no room for their names."""
_GAPS = 8
"""Blanks around the columns of a line."""
_KEPT = ("status", "steps", "trainable_parameters", "seconds_per_step")
"""Facts of run.json that are numbers to compare, too."""
_NAMED = ("data_fingerprint", "weights_fingerprint")
_DESCRIPTIVE = ("name", "paths.outputs", "paths.reports", "ablation")
"""Keys of a config, or what they begin with, that say nothing of what was computed."""


@dataclass(frozen=True)
class Compared:
    """One thing that both runs have, or one of them. `change`: from the first to the second."""

    name: str
    values: tuple[str, str]
    change: str = ""

    @property
    def differs(self) -> bool:
        """Whether it is not the same in both."""
        return self.values[0] != self.values[1]


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "diff", help="two runs side by side: config, code, data, versions, numbers"
    )
    parser.add_argument("run_name", metavar="RUN", help=HELP)
    parser.add_argument("other_name", metavar="RUN", help="the one to hold beside it")
    parser.add_argument("--all", action="store_true", help="show what is the same in both, too")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    outputs = resolve_path(options.outputs)
    runs = [find_run(outputs, name) for name in (options.run_name, options.other_name)]
    titles = [_title(run) for run in runs]
    if runs[0].path.resolve() == runs[1].path.resolve():  # by a link, also of two sweeps
        print(f"{' and '.join(dict.fromkeys(titles))}: one and the same run, nothing to compare")
        return 0
    if len(set(titles)) < len(titles):
        titles = [str(run.path) for run in runs]
    width = shutil.get_terminal_size().columns
    print("\n".join(lines(compare(*runs), titles, width, everything=options.all)))
    return 0


def _title(run: RunDirectory) -> str:
    info = run.info
    return f"{run.path.parent.name}/{info.get('label') or run.path.name}/{info.get('seed', '')}"


def compare(one: RunDirectory, other: RunDirectory) -> dict[str, list[Compared]]:
    """All that two runs can be compared by, in chapters.

    Raises:
        ConfigError: the config of one cannot be read.
    """
    runs = (one, other)
    infos = (one.info, other.info)
    return {
        "config": _config(runs),
        "code": [*_git(infos), *_definitions(runs)],
        "data and backbones": [*_named(infos), *_protocol(infos)],
        "versions and machine": _machine(infos),
        "numbers": [*_facts(infos), *_scores(infos)],
    }


def _config(runs: Sequence[RunDirectory]) -> list[Compared]:
    flat = [flatten(stored_config(r.config_file)) if r.config_file.exists() else {} for r in runs]
    for run, config in zip(runs, flat, strict=True):
        if not config and not run.info:
            raise ConfigError(f"{run.path} is no run directory: it has no config.yaml")
    compared = _lines(*flat)
    return [line for line in compared if not line.name.startswith(_DESCRIPTIVE)]


def _git(infos: Sequence[Mapping[str, Any]]) -> list[Compared]:
    def facts(info: Mapping[str, Any]) -> dict[str, Any]:
        git = info.get("git") or {}
        known = {"commit": (git.get("commit") or "unknown")[:10]} if git else {}
        return known | ({"uncommitted changes": bool(git.get("dirty"))} if git else {})

    return _lines(facts(infos[0]), facts(infos[1]))


def _definitions(runs: Sequence[RunDirectory]) -> list[Compared]:
    """Definitions that the two depend on and that are not the same, by their hashes."""
    before, after = (code.parts_of(run.path) for run in runs)
    if not before or not after:
        return []
    names = code.differences(before, after)
    return [
        Compared(name, (before.get(name, _ABSENT)[:10], after.get(name, _ABSENT)[:10]))
        for name in names
    ]


def _named(infos: Sequence[Mapping[str, Any]]) -> list[Compared]:
    known = [{key.replace("_", " "): i[key] for key in _NAMED if i.get(key)} for i in infos]
    return _lines(*known)


def _protocol(infos: Sequence[Mapping[str, Any]]) -> list[Compared]:
    return _lines(*({f"protocol: {k}": v for k, v in _mapping(i, "protocol")} for i in infos))


def _machine(infos: Sequence[Mapping[str, Any]]) -> list[Compared]:
    return [
        *_lines(*(dict(_mapping(info, "versions")) for info in infos)),
        *_lines(*(dict(_mapping(info, "hardware")) for info in infos)),
    ]


def _mapping(info: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    value = info.get(key)
    return list(value.items()) if isinstance(value, Mapping) else []


def _facts(infos: Sequence[Mapping[str, Any]]) -> list[Compared]:
    def facts(info: Mapping[str, Any]) -> dict[str, Any]:
        known = {key.replace("_", " "): info[key] for key in _KEPT if info.get(key) is not None}
        word = (info.get("convergence") or {}).get("word")
        spent = hours(info)
        more = {"training": word, f"{cost_unit([info])}-hours": spent if isfinite(spent) else None}
        return known | {key: value for key, value in more.items() if value is not None}

    return _lines(facts(infos[0]), facts(infos[1]))


def _scores(infos: Sequence[Mapping[str, Any]]) -> Iterator[Compared]:
    """Scores of each protocol in percent, and by how many points the second is above the first."""
    from keyseg.metrics import BY_NAME

    summaries = [info.get("summary") or {} for info in infos]
    protocols = dict.fromkeys(p for summary in summaries for p in summary)
    for protocol in protocols:
        both = [summary.get(protocol) or {} for summary in summaries]
        for name, measure in BY_NAME.items():
            values = [_number(t.get(name)) for t in both]
            if values == [None, None]:
                continue
            shown = [_ABSENT if v is None else f"{100 * v:.2f} %" for v in values]
            one, other = values
            change = ""
            if one is not None and other is not None:
                change = f"{100 * (other - one):+.2f} points"
            title = f"{measure.title}, {protocol.replace('_', ' ')}"
            yield Compared(title, (shown[0], shown[1]), change)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _lines(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Compared]:
    def text(side: Mapping[str, Any], name: str) -> str:
        return _text(side[name]) if name in side else _ABSENT

    names = dict.fromkeys([*one, *other])
    return [Compared(name, (text(one, name), text(other, name))) for name in names]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, default=str, ensure_ascii=False)


def lines(
    chapters: Mapping[str, Sequence[Compared]],
    titles: Sequence[str],
    width: int,
    *,
    everything: bool = False,
) -> list[str]:
    """The comparison as it is printed: what differs.

    A value that its column has no room for stands on a line of its own. Titles are never cut: for
    long ones - and + stand over the columns, and on top which run each is.
    """
    shown = {
        chapter: [line for line in every if everything or line.differs]
        for chapter, every in chapters.items()
    }
    out: list[str] = []
    heads = titles
    if any(_needed(kept, titles) > width for kept in shown.values() if kept):
        heads = list(_MARKS)
        out += [f"{mark} {title}" for mark, title in zip(heads, titles, strict=True)]
    for chapter, every in chapters.items():
        kept = shown[chapter]
        out += ["", chapter] if out else [chapter]
        if not kept:
            out.append("  the same in both" if every else "  not recorded")
            continue
        out += _columns(kept, heads, width)
        same = len(every) - len(kept)
        out += [f"  the same in both: {same} more (--all shows them)"] if same else []
    return out


def _needed(kept: Sequence[Compared], titles: Sequence[str]) -> int:
    """Letters of a line with whole titles, beside the longest name and change."""
    around = max(len(line.name) for line in kept) + max(len(line.change) for line in kept)
    return around + sum(map(len, titles)) + _GAPS


def _columns(kept: Sequence[Compared], heads: Sequence[str], width: int) -> list[str]:
    name = max(len(line.name) for line in kept)
    change = max(len(line.change) for line in kept)
    room = max(12, (width - name - change - _GAPS) // 2)
    sizes = [
        max(len(head), min(room, max(len(line.values[side]) for line in kept)))
        for side, head in enumerate(heads)
    ]
    out = [f"  {'':<{name}}  {heads[0]:<{sizes[0]}}  {heads[1]}"]
    for line in kept:
        if any(len(v) > size for v, size in zip(line.values, sizes, strict=True)):
            marked = zip(_MARKS, line.values, strict=True)
            out += [f"  {line.name}", *(f"    {mark} {value}" for mark, value in marked)]
            continue
        values = "  ".join(v.ljust(size) for v, size in zip(line.values, sizes, strict=True))
        out.append(f"  {line.name:<{name}}  {values}  {line.change}".rstrip())
    return out
