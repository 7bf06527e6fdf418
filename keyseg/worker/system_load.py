"""What a run takes of its machine: a sample now and then, beside the results.

Names are those of MLflow's own system metrics where it has them, so that its page shows them under
"System metrics". A sample costs about a millisecond, in a thread of its own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from keyseg.runs.disk import DiskFullError
from keyseg.runs.run_directory import Row, RunDirectory, now

SHORTEST, _LONGEST = 5.0, 60.0
"""Seconds between two samples: a tenth of the run so far, within these."""

MEGABYTE = 1e6


class Sampler:
    """Samples of this process and its machine."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.read()  # loads are measured since the call before

    def read(self) -> dict[str, float]:
        """Values by name: percent, megabytes, cores."""
        memory = psutil.virtual_memory()
        load = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            "process_cores": self.process.cpu_percent() / 100,
            "process_memory_megabytes": self.process.memory_info().rss / MEGABYTE,
        }
        return {f"system/{name}": value for name, value in (load | _gpus()).items()}


def _gpus() -> dict[str, float]:
    """Memory that torch holds, and load where NVIDIA's library is installed (pynvml)."""
    torch = sys.modules.get("torch")
    load: dict[str, float] = {}
    if torch is None or not torch.cuda.is_initialized():
        return load
    for i in range(torch.cuda.device_count()):
        load[f"gpu_{i}_memory_usage_megabytes"] = torch.cuda.memory_reserved(i) / MEGABYTE
        with suppress(Exception):  # no pynvml, or a driver that does not say
            load[f"gpu_{i}_utilization_percentage"] = float(torch.cuda.utilization(i))
            load[f"gpu_{i}_power_usage_watts"] = torch.cuda.power_draw(i) / 1000
    return load


@contextmanager
def watch(run: RunDirectory, *, shortest: float = SHORTEST) -> Iterator[None]:
    """Write samples to system.jsonl while the body runs, and one at its end.

    `step` of a row is the second of the run, counted from the start of its first attempt.
    """
    begun = (run.info.get("attempts") or [{}])[0].get("started") or now()
    stop = threading.Event()

    def follow() -> None:
        sampler = Sampler()  # psutil remembers the call before by thread
        started, last, stopped = now(), -1, False
        while not stopped:
            stopped = stop.wait(min(max(shortest, (now() - started) / 10), _LONGEST))
            moment = now()
            second = int(moment - begun)
            if second > last:
                last = second
                with suppress(DiskFullError):  # the run says so itself, with what it has to lose
                    run.log_system(Row(n, v, second, moment) for n, v in sampler.read().items())

    thread = threading.Thread(target=follow, name="system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
