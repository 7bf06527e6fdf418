"""Numbers in print: reports/published/*.csv, each with its source and how it was measured.

A number in print stands beside a measured one only where both are of one public data set, and with
the words in what else the two differ. What a source does not state is written so, with what its
public code does in brackets where that is known: "not stated (public code: first)".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite, nan
from pathlib import Path
from typing import Any

import pandas as pd

from keyseg.dialects.keyseg import OURS
from keyseg.dialects.score import dialects
from keyseg.report.store import Sweep
from keyseg.report.tables.table import DASH, Entry, Line, Table

RULES = ("texts", "prompt", "ignore", "dialect")
"""Which expressions count, how they are asked, what void pixels are, and the rule of scoring."""

PRINTED_COLUMNS = (
    "table",
    "data",
    "split",
    "row",
    "variant",
    "metric",
    "value_percent",
    "source",
    "protocol",
    "backbone",
    *RULES,
)

PUBLIC = (
    "grefcoco",
    "reason_seg",
    "reason_seg_key",
    "refcoco",
    "refcoco_google",
    "refcoco_plus",
    "refcocog",
    "refcocog_google",
    "refer_reason",
)
"""Options of `data` that are public data sets: a folder of one's own in their form is none."""
OWN_IGNORE = "count nowhere"
"""How our own tables count pixels to ignore."""
NO_IGNORE = "none in the data"

_UNKNOWN = "not stated"
_PUBLIC_CODE = re.compile(rf"{_UNKNOWN} \([a-z ]+: (.+)\)")


def load(folder: Path, names: object = None) -> pd.DataFrame:
    """All rows of a folder's files, or of those that `names` (a name or a list) gives.

    Empty texts are "". A folder that does not exist holds no rows. A file need not have `RULES`.

    Raises:
        ValueError: a file lacks a column, or holds a value that is no number.
    """
    wanted = [names] if isinstance(names, str) else names
    frames = []
    for file in sorted(folder.glob("*.csv")):
        if isinstance(wanted, list) and file.stem not in wanted:
            continue
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
        frame = frame.assign(**{kind: _UNKNOWN for kind in RULES if kind not in frame})
        missing = [column for column in PRINTED_COLUMNS if column not in frame]
        if missing:
            raise ValueError(f"{file} lacks the columns {', '.join(missing)}")
        try:
            frame["value_percent"] = frame["value_percent"].astype(float)
        except ValueError as error:
            raise ValueError(f"{file}, column value_percent: {error}") from error
        frames.append(frame[list(PRINTED_COLUMNS)])
    return (
        pd.concat(frames, ignore_index=True)
        if frames
        else pd.DataFrame(columns=list(PRINTED_COLUMNS))
    )


def of(sweep: Sweep, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of variants that this sweep measures, on data sets that it was tested on."""
    measured = rows["variant"].isin([v.fusion or v.label for v in sweep.variants])
    known: pd.DataFrame = rows[measured & rows["data"].str.lower().isin(_data_sets(sweep))]
    return known


def _data_sets(sweep: Sweep) -> set[str]:
    """Public data sets that the runs were tested on, in small letters."""
    names: set[str] = set()
    for cell in sweep.finished:
        data = (cell.info.get("protocol") or {}).get("data")
        if data in PUBLIC and "slice_dataset" in cell.samples:
            names |= {str(name).lower() for name in cell.samples["slice_dataset"].unique()}
    return names


def beside(sweep: Sweep, rows: pd.DataFrame) -> pd.DataFrame:
    """Of these, the rows of one split: the sweep's own, else that of most variants.

    Where a variant stands in several tables of the same data, all its rows are kept, in order.
    """
    rows = of(sweep, rows)
    if rows.empty:
        return rows
    places = rows[["data", "split"]].apply(tuple, axis=1)
    own = [place for place in places.unique() if not _other_data(sweep, *place)]
    counts = rows.groupby(places)["variant"].nunique()
    place = own[0] if own else max(places.unique(), key=lambda p: counts[p])
    kept: pd.DataFrame = rows[places == place]
    return kept


def on_same_data(sweep: Sweep, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of every system on the split that all runs of this sweep were tested on."""
    if rows.empty or not _data_sets(sweep):
        return rows.iloc[:0]
    places = rows[["data", "split"]].drop_duplicates().to_numpy()
    same = {(data, split) for data, split in places if not _other_data(sweep, data, split)}
    kept: pd.DataFrame = rows[
        [pair in same for pair in zip(rows["data"], rows["split"], strict=True)]
    ]
    return kept


def differs(sweep: Sweep, rows: pd.DataFrame) -> list[str]:
    """For each row in what it differs from the measurements: "data, protocol, texts"; "" = nothing.

    What a source does not state counts as another protocol and backbone. Of texts, prompt, pixels
    to ignore and dialect its public code is taken at its word, and "(not stated)" stands behind
    those that neither says.
    """
    headline = sweep.headline.replace("_", "-") if sweep.protocols else ""
    backbones = _own(sweep, "backbone")
    out = []
    for row in rows.to_dict("records"):
        kinds = {
            "data": _other_data(sweep, row["data"], row["split"]),
            "protocol": not str(row["protocol"]).startswith(headline or "?"),
            "backbone": backbones != {row["backbone"]},
        }
        named = [kind for kind, other in kinds.items() if other]
        out.append(", ".join([*named, *_other_rules(sweep, row)]))
    return out


def known(value: str) -> str:
    """What a column of the rules says: the source, or else its public code; "" where neither."""
    match = _PUBLIC_CODE.fullmatch(value)
    if match:
        return match[1]
    return "" if value in ("", _UNKNOWN) else value


def _other_rules(sweep: Sweep, row: Mapping[Any, Any]) -> list[str]:
    """Kinds of difference in how masks were asked for and counted."""
    ours = {
        "texts": _own(sweep, "texts"),
        "prompt": _own(sweep, "prompt"),
        "ignore": {OWN_IGNORE, NO_IGNORE},
        "dialect": {n for n, d in dialects().items() if d.count is dialects()[OURS].count},
    }
    differences = []
    for kind, own in ours.items():
        said = known(str(row[kind]))
        if not said:
            differences.append(f"{kind} ({_UNKNOWN})")
        elif said not in own or (kind in ("texts", "prompt") and len(own) > 1):
            differences.append(kind)
    return differences


def _own(sweep: Sweep, key: str) -> set[str]:
    """What the protocols of our own runs say."""
    ours = [cell for cell in sweep.finished if not cell.imported]
    return {str((cell.info.get("protocol") or {}).get(key)) for cell in ours}


def table(sweep: Sweep, rows: pd.DataFrame) -> Table | None:
    """Numbers in print of the variants that this sweep measures; None without any."""
    wanted = {v.fusion or v.label: v for v in sweep.variants}
    rows = of(sweep, rows)
    if rows.empty:
        return None
    rows = rows.assign(differs=differs(sweep, rows))
    keys = ["variant", "data", "split", "table", "row", "protocol", "backbone", "source", *RULES]
    keys.append("differs")
    wide = rows.pivot_table("value_percent", keys, "metric", sort=False).reset_index()
    wide["order"] = wide["variant"].map({name: v.index for name, v in wanted.items()})
    place = wide[["data", "split"]].agg(" ".join, axis=1).str.strip()
    words = {
        "Data": place,
        "Row in print": wide["row"],
        "Differs from this sweep in": wide["differs"].replace("", "nothing stated"),
        "Protocol": wide["protocol"],
        "Backbone": wide["backbone"],
        **{kind.capitalize(): wide[kind] for kind in RULES},
        "Source": wide["source"],
    }
    # What is the same in every line is said once.
    same = {title: w.iloc[0] for title, w in words.items() if w.nunique() == 1}
    said = "".join(f" {title}: {text}." for title, text in same.items())
    kept = [title for title in words if title not in same]
    lines = []
    for i in wide.sort_values("order", kind="stable").index:
        numbers = [float(wide[k].get(i, nan)) if k in wide else nan for k in ("giou", "ciou")]
        entries = [Entry(number(n) if isfinite(n) else DASH) for n in numbers]
        entries += [Entry(str(words[title][i])) for title in kept]
        variant = wanted[str(wide["variant"][i])]
        lines.append(Line(variant.label, entries, variant.index))
    return Table(
        "published",
        "In print",
        "Copied from publications, percent. Training budgets differ too: read the order of rows "
        f"within one source, not the values against the measured ones.{said}",
        "Variant",
        ("gIoU", "cIoU", *kept),
        lines,
        mark="in print",
        text=frozenset(range(2, 2 + len(kept))),
    )


def number(value: float) -> str:
    """As many digits as sources give: 63.85, 42.6."""
    return f"{value:.2f}".removesuffix("0")


def _other_data(sweep: Sweep, data: str, split: str) -> bool:
    """Whether the runs were tested on anything but this split of this data set."""
    parts = ["slice_dataset", "slice_split"]
    seen: set[tuple[str, str]] = set()
    for cell in sweep.finished:
        for dataset, part in cell.samples.reindex(columns=parts).drop_duplicates().to_numpy():
            seen.add((str(dataset).lower(), str(part)))
    return seen != {(data.lower(), split or "test")}
