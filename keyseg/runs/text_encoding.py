"""The encoding in which text is written and read, whatever the locale."""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys


def write_any_text() -> None:
    """What a terminal's or a log's encoding lacks is written as `?`: no command ends by that."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def in_utf8() -> None:
    """Start the program again in Python's UTF-8 mode where files would be read in another encoding.

    Call it first: nothing of the program may have happened.
    """
    write_any_text()
    encoding = codecs.lookup(locale.getpreferredencoding(False)).name
    if not sys.flags.utf8_mode and encoding != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
