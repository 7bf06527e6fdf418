import errno
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from keyseg.runs.disk import DiskFullError
from keyseg.runs.run_directory import Row, RunDirectory, now, parse_rows
from keyseg.worker import system_load


def system_rows(run: RunDirectory) -> list[Row]:
    return parse_rows(run.system_file, run.system_file.read_bytes())


def test_samples_are_rows_of_a_file_of_their_own(tmp_path, run_config):
    run = RunDirectory.create(tmp_path / "x", run_config)
    run.update(attempts=[{"started": now() - 100}])
    with system_load.watch(run, shortest=0.2):
        time.sleep(1.3)
    rows = [line for line in run.system_file.read_text().splitlines() if "process_memory" in line]
    assert len(rows) == 2  # no two of the same second
    assert '"step": 100' in rows[0]
    loads = [r for r in system_rows(run) if r.name == "system/cpu_utilization_percentage"]
    assert max(row.value for row in loads) > 0
    assert run.metrics().empty
    read = system_load.Sampler().read()
    assert 10 < read["system/process_memory_megabytes"] < 100_000
    assert 0 <= read["system/system_memory_usage_percentage"] <= 100


def test_gpus_are_read_where_torch_uses_them(monkeypatch):
    def no_pynvml(device: int) -> int:
        raise ModuleNotFoundError("pynvml")

    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 1,
        memory_reserved=lambda i: 3_000_000,
        utilization=lambda i: 97,
        power_draw=no_pynvml,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert system_load._gpus() == {
        "gpu_0_memory_usage_megabytes": 3.0,
        "gpu_0_utilization_percentage": 97.0,
    }


def test_a_full_disk_does_not_end_the_run(tmp_path, run_config, monkeypatch):
    run = RunDirectory.create(tmp_path / "x", run_config)
    asked = []

    def no_room(path: Path, content: bytes) -> None:
        asked.append(path)
        raise DiskFullError(path, errno.ENOSPC)

    monkeypatch.setattr("keyseg.runs.disk.append", no_room)
    with system_load.watch(run):
        pass
    assert asked == [run.system_file]
