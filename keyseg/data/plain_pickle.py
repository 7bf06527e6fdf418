"""Read a pickle that comes from a stranger: plain containers only, and nothing is ever run.

The refs files of the refer data sets are pickles from the web. A pickle can call any function; it
reaches every function by a global lookup, so one that may look up nothing is only data.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from keyseg.data.files import DataError


class _ForbiddenError(Exception):
    pass


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise _ForbiddenError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _ForbiddenError("a persistent id")


def load(path: Path) -> Any:
    """Unpickle list, dict, tuple, set, frozenset, str, bytes, int, float, bool and None.

    Strings of Python 2 pickles are read as UTF-8, or as Latin-1 where they are not.

    Raises:
        DataError: the file asks for a global (a function or a class), or is damaged.
    """
    raw = path.read_bytes()
    try:
        try:
            return _PlainUnpickler(io.BytesIO(raw), encoding="utf-8").load()
        except UnicodeDecodeError:
            return _PlainUnpickler(io.BytesIO(raw), encoding="latin-1").load()
    except _ForbiddenError as error:
        raise DataError(
            f"{path} asks for {error}: only plain lists, dicts, strings and numbers are read from "
            "a pickle, since anything else could run code. Get the file from its public page"
        ) from None
    except Exception as error:
        # Damaged pickles raise whatever the opcode at the damage happens to raise.
        raise DataError(
            f"{path} is not a valid pickle ({type(error).__name__}: {error}): download it again"
        ) from error
