"""Numbers in print: reports/published/*.csv, each with its source, protocol and backbone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

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
