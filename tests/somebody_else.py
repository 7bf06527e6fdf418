"""What another user of the machine gets: the user `nobody`, in a process of their own."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress


def as_nobody(do: Callable[[], int]) -> tuple[int, str]:
    """What somebody else gets, and is told, in a process of their own."""
    with tempfile.TemporaryFile("w+") as out:
        child = os.fork()
        if child == 0:
            code = 99
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                for stream in (1, 2):
                    os.dup2(out.fileno(), stream)
                sys.stdout = sys.stderr = os.fdopen(1, "w")
                code = do()
            except BaseException:
                traceback.print_exc(file=out)
            finally:
                with suppress(Exception):
                    sys.stdout.flush()
                    out.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        return os.waitstatus_to_exitcode(status), out.read()
