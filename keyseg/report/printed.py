"""Numbers in print: reports/published/*.csv, each with its source, protocol and backbone.

A number in print stands beside a measured one only with the words in what the two differ.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from keyseg.report.store import Sweep

COLUMNS = (
    *("table", "data", "split", "row", "variant", "metric", "value_percent", "source"),
    *("protocol", "backbone"),
)


def load(folder: Path, names: object = None) -> pd.DataFrame:
    """All rows of a folder's files, or of those that `names` (a name or a list) gives.

    Empty texts are "". A folder that does not exist holds no rows.

    Raises:
        ValueError: a file lacks a column, or holds a value that is no number.
    """
    wanted = [names] if isinstance(names, str) else names
    frames = []
    for file in sorted(folder.glob("*.csv")):
        if isinstance(wanted, list) and file.stem not in wanted:
            continue
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
        missing = [column for column in COLUMNS if column not in frame]
        if missing:
            raise ValueError(f"{file} lacks the columns {', '.join(missing)}")
        try:
            frame["value_percent"] = frame["value_percent"].astype(float)
        except ValueError as error:
            raise ValueError(f"{file}, column value_percent: {error}") from error
        frames.append(frame[list(COLUMNS)])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))


def of(sweep: Sweep, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of variants that this sweep measures."""
    known: pd.DataFrame = rows[rows["variant"].isin([v.fusion or v.label for v in sweep.variants])]
    return known


def beside(sweep: Sweep, rows: pd.DataFrame) -> pd.DataFrame:
    """Of these, the rows of one data set and split: the sweep's own, else that of most variants.

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


def differs(sweep: Sweep, rows: pd.DataFrame) -> list[str]:
    """For each row in what it differs from the measurements: "data, protocol, backbone"; "" = none.

    A protocol that the source does not state counts as another one.
    """
    headline = sweep.protocols[0].replace("_", "-") if sweep.protocols else ""
    backbones = {str((c.info.get("protocol") or {}).get("backbone")) for c in sweep.finished}
    out = []
    for row in rows.to_dict("records"):
        kinds = {
            "data": _other_data(sweep, row["data"], row["split"]),
            "protocol": not str(row["protocol"]).startswith(headline or "?"),
            "backbone": backbones != {row["backbone"]},
        }
        out.append(", ".join(kind for kind, other in kinds.items() if other))
    return out


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
