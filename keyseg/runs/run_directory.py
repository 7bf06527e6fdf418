"""The run directory: everything that a run leaves behind, from which all else can be rebuilt.

    config.yaml       the resolved config, frozen
    run.json          status, attempts, summary and whatever else is known of the run
    metrics.jsonl     every row (name, value, step, time), append-only
    system.jsonl      load of the machine over time, in rows of the same form
    samples.parquet   one row per evaluated example and protocol
    interventions/    the same with KEY's or SEG's state replaced, a file for each kind
    evaluations/      the same of other data, a folder for each test set
    checkpoints/      best.safetensors; last.pt until the run is done
    log.txt  run.lock  code.json (what computed it)
    before/           results that a run which began anew is to replace

Files that are replaced are written to a temporary name and renamed, so a reader never sees half
of one. `metrics.jsonl` is appended to: a process killed in the middle of a line leaves a torn last
line, which readers skip and the next writer removes.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import filelock
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from keyseg.config import ConfigError, RunConfig, signature, validate
from keyseg.runs import disk

if TYPE_CHECKING:
    import pandas as pd

EXIT_BUSY = 75
"""Exit code of a worker that found its run locked by another process (EX_TEMPFAIL)."""

EXIT_STOPPED = 85
"""Exit code of a worker that was asked to stop: it left a checkpoint and wants to go on later."""

EXIT_NO_SPACE = 74
"""Exit code of a worker that could not write (EX_IOERR): the disk may be too full to say why."""

TEST = "test/"
"""Names of rows of the test split begin so; a run that is not done may log them again."""

QUEUED, RUNNING, DONE, FAILED, PRUNED = "queued", "running", "done", "failed", "pruned"

STOPPED = "stopped"
"""A state that no run.json says: it was begun, or is called for, and nobody works on it."""

_RESULTS = (
    "checkpoints",
    "metrics.jsonl",
    "system.jsonl",
    "samples.parquet",
    "mlflow.json",
    "val_iou.jsonl",
    "interventions",
    "evaluations",
    "prune.json",
    "code.json",
    "code.diff",
)
"""What a run writes, beside run.json and its log."""

_PROBE_SECONDS = 0.5
"""How long `lock` waits before it calls a run busy: `busy` holds the lock for a moment."""


class Row(NamedTuple):
    """One measured value. `step`: optimiser step, 1-based. `time`: seconds since the epoch."""

    name: str
    value: float
    step: int
    time: float


def is_loss(name: str) -> bool:
    """Whether rows of this name are the loss that is trained, or a term of it."""
    return name.startswith("train/") and name not in ("train/lr", "train/seconds_per_step")


class RunBusy(RuntimeError):  # noqa: N818 (a state, not a mistake)
    """Another process works on this run."""


class DamagedError(ValueError):
    """A file of a run cannot be read, or is not what was written; names it and the remedy."""


class RunDirectory:
    """One run on disk. Opening it writes nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._appended: set[Path] = set()

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @classmethod
    def create(cls, path: str | Path, cfg: RunConfig | DictConfig, **info: Any) -> RunDirectory:
        """Open the directory of a run; make what is missing of it.

        `info` goes into a new run.json; an existing run.json and config.yaml stay as they are.
        """
        run = cls(path)
        run._undo_half()
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        if not run.config_file.exists():
            run.freeze(cfg)
        with run._updating():
            if not run.info:
                base = {
                    "id": _identity(),
                    "signature": signature(cfg),
                    "status": QUEUED,
                    "seed": cfg.seed,
                }
                # known here, too: who shows a thousand runs does not read a thousand configs
                length = {"steps": cfg.optim.steps, "tests": bool(cfg.evaluation.protocols)}
                run._write_info({**base, **length, "attempts": [], **info})
        return run

    @property
    def sweep_dir(self) -> Path:
        """The folder of the sweep that it was made for; a link to it from another changes nothing.

        MLflow shows a run once, in that sweep.
        """
        there = self.path.parent / self.path.readlink() if self.path.is_symlink() else self.path
        return there.parent

    # -- config and state -------------------------------------------------------------------

    @property
    def config_file(self) -> Path:
        """The frozen config."""
        return self.path / "config.yaml"

    @property
    def config(self) -> RunConfig:
        """The frozen config, checked.

        It may come from elsewhere: nothing in it is resolved, and `keyseg.runs.targets` says which
        classes it may name.

        Raises:
            FileNotFoundError: the directory holds no config.yaml, so it is no run directory.
            ConfigError: config.yaml does not fit this version's schema.
        """
        if not self.config_file.exists():
            raise FileNotFoundError(f"{self.path} is not a run directory: it has no config.yaml")
        return validate(stored_config(self.config_file))

    def freeze(self, cfg: RunConfig | DictConfig) -> None:
        """Write config.yaml. For keys that cannot change a result it may be written again."""
        if isinstance(cfg, DictConfig):
            text = OmegaConf.to_yaml(cfg, resolve=True)
        else:  # the same text without building a node for each value, which takes 20 ms
            text = yaml.dump(
                asdict(cfg),
                default_flow_style=False,
                allow_unicode=True,
                sort_keys=False,
                Dumper=_Dumper,
            )
        disk.replace(self.config_file, text.encode())

    @property
    def info(self) -> dict[str, Any]:
        """run.json as it is now; {} where there is none.

        Of one that cannot be read: that of a failed run, whose `damaged` names file and remedy. The
        other runs of a sweep go on.
        """
        file = self.path / "run.json"
        try:
            loaded = json.loads(file.read_bytes())
            if isinstance(loaded, dict):
                return loaded
            reason = "no JSON object"
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:
            reason = str(error)
        damage = (
            f"{file} cannot be read ({reason}): put it back from a copy, or begin the run anew "
            "with rerun=true"
        )
        return {"status": FAILED, "error": damage, "damaged": damage}

    @property
    def status(self) -> str:
        """queued, running, done, failed or pruned. "running" may be stale: see `busy`."""
        return str(self.info.get("status", QUEUED))

    def update(self, **fields: Any) -> None:
        """Set these keys of run.json and keep the others; safe between threads and processes.

        Raises:
            DamagedError: what is there cannot be read; it is left as it is.
        """
        with self._updating():
            info = self.info
            if "damaged" in info:
                raise DamagedError(info["damaged"])
            self._write_info({**info, **fields})

    @property
    def identity(self) -> str:
        """What tells this run from every other, also from those of the same config elsewhere.

        It is made with run.json, and anew where the run begins anew. A run that was made before
        runs had one gets it now.
        """
        if not self.info.get("id"):
            with self._updating():
                info = self.info
                if "damaged" in info:
                    raise DamagedError(info["damaged"])
                if not info.get("id"):
                    self._write_info({"id": _identity(), **info})
        return str(self.info["id"])

    # -- one process at a time --------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run; the lock ends with the process, however it ends.

        Raises:
            RunBusy: another process holds it.
        """
        lock = filelock.FileLock(self.path / "run.lock")
        try:
            lock.acquire(timeout=_PROBE_SECONDS, poll_interval=0.05)
        except filelock.Timeout:
            raise RunBusy(f"{self.path}: another process works on this run") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def busy(self) -> bool:
        """Whether a process works on this run now."""
        if not (self.path / "run.lock").exists():
            return False
        probe = filelock.FileLock(self.path / "run.lock")
        try:
            probe.acquire(timeout=0)
        except filelock.Timeout:
            return True
        except OSError as error:
            if not disk.read_only(error):
                raise
            try:
                return disk.seen_locked(self.path / "run.lock")
            except OSError:  # not even that: run.json has to do
                return self.status == RUNNING
        probe.release()
        return False

    def begin_anew(self) -> None:
        """Have the run start from step 0. Its results are set aside until there are new ones.

        The attempts stay listed, and the log. The caller makes sure that the run is not busy. Its
        MLflow run is left as it is; the next one is a new one.
        """
        if "damaged" in self.info:
            (self.path / "run.json").unlink()
        if self.status in (DONE, PRUNED):
            shutil.rmtree(self.before, ignore_errors=True)
            self.before.mkdir()
            shutil.copy2(self.config_file, self.before / self.config_file.name)
            _move_results(self.path, self.before)
            shutil.copy2(self.path / "run.json", self.before / "run.json")  # the last: it is whole
        for name in _RESULTS:
            _delete(self.path / name)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        if not self.info:  # it was damaged; `create` makes a new one
            return
        kept = ("signature", "factors", "label", "seed", "sweep", "steps", "tests")
        with self._updating():
            info = self.info
            fresh: dict[str, Any] = {"status": QUEUED, "id": _identity()}
            fresh["attempts"] = without_traces(info.get("attempts") or [])
            self._write_info({k: info[k] for k in kept if k in info} | fresh)

    def replaced(self) -> None:
        """There are new results: what was set aside is deleted."""
        shutil.rmtree(self.before, ignore_errors=True)

    def restore(self, error: str) -> bool:
        """Put back what was set aside, where a new run ended before its first checkpoint.

        `error`: why it did; run.json keeps it as `rerun_error`. Returns whether there was anything.
        """
        if not (self.before / "run.json").exists() or self.last_file.exists():
            return False
        for name in _RESULTS:
            _delete(self.path / name)
        _move_results(self.before, self.path)
        (self.before / self.config_file.name).replace(self.config_file)
        with self._updating():
            old = json.loads((self.before / "run.json").read_bytes())
            before = list(old.get("attempts") or [])
            since = (self.info.get("attempts") or [])[len(before) :]
            attempts = [*before, *without_traces(since)]
            self._write_info(old | {"attempts": attempts, "rerun_error": error})
        self.replaced()
        return True

    def _undo_half(self) -> None:
        """Put back what a process set aside that was killed while doing so."""
        if self.before.exists() and not (self.before / "run.json").exists():
            _move_results(self.before, self.path)
            self.replaced()

    @property
    def before(self) -> Path:
        """Where results lie that a new run is to replace."""
        return self.path / "before"

    # -- results ----------------------------------------------------------------------------

    def log(self, rows: Iterable[Row]) -> None:
        """Append rows to metrics.jsonl in one write.

        Raises:
            DiskFullError: there is no room; none of the rows was written.
        """
        self._append(self.metrics_file, rows)

    def log_system(self, rows: Iterable[Row]) -> None:
        """Append rows to system.jsonl. Their `step` is a second of the run, and none is dropped.

        Raises:
            DiskFullError: there is no room; none of the rows was written.
        """
        self._append(self.system_file, rows)

    @property
    def metrics_file(self) -> Path:
        """All rows as JSON lines."""
        return self.path / "metrics.jsonl"

    @property
    def system_file(self) -> Path:
        """What the run took of its machine, in lines like those of metrics.jsonl."""
        return self.path / "system.jsonl"

    def rows(self) -> list[Row]:
        """All rows in the order they were logged.

        Raises:
            ValueError: a line other than a torn last one cannot be read.
        """
        return parse_rows(self.metrics_file, _read(self.metrics_file))

    def metrics(self) -> pd.DataFrame:
        """All rows as a frame with the columns name, value, step and time."""
        import pandas as pd

        types = {"name": "str", "value": "float64", "step": "int64", "time": "float64"}
        return pd.DataFrame(self.rows(), columns=list(types)).astype(types)

    def truncate(self, step: int) -> None:
        """Drop what the next attempt logs anew: rows after `step`, and those of the test split.

        `step`: of the last checkpoint. The test split is read again by an attempt that was not
        done.
        """
        rows = self.rows()
        kept = [row for row in rows if row.step <= step and not row.name.startswith(TEST)]
        if len(kept) < len(rows):
            disk.replace(self.metrics_file, "".join(map(_line, kept)).encode())

    def write_samples(self, df: pd.DataFrame) -> None:
        """Write samples.parquet: one row per evaluated example and protocol."""
        with disk.replacing(self.samples_file) as file:
            df.to_parquet(file, index=False)

    @property
    def samples_file(self) -> Path:
        """Per-example results of the test split."""
        return self.path / "samples.parquet"

    @property
    def interventions(self) -> Path:
        """Where results with KEY's or SEG's state replaced lie (`keyseg.runs.interventions`)."""
        return self.path / "interventions"

    @property
    def evaluations(self) -> Path:
        """Where results on other data lie (`keyseg.runs.evaluations`)."""
        return self.path / "evaluations"

    def samples(self) -> pd.DataFrame:
        """Per-example results.

        Raises:
            FileNotFoundError: the run has not been evaluated on the test split yet.
        """
        import pandas as pd

        if not self.samples_file.exists():
            raise FileNotFoundError(f"{self.samples_file}: none yet (status: {self.status})")
        return pd.read_parquet(self.samples_file)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints: last and best."""
        return self.path / "checkpoints"

    @property
    def last_file(self) -> Path:
        """The checkpoint that a stopped run goes on from; none once it is done."""
        return self.checkpoints / "last.pt"

    @property
    def best_file(self) -> Path:
        """What was trained, at the best val score; the backbones are not in it."""
        return self.checkpoints / "best.safetensors"

    @property
    def prune_file(self) -> Path:
        """Exists once the run has been asked to end, as pruned, at its next evaluation."""
        return self.path / "prune.json"

    @property
    def val_iou_file(self) -> Path:
        """IoU of every example of val, a line per evaluation; where `keep_val_iou` asks for it."""
        return self.path / "val_iou.jsonl"

    @property
    def log_file(self) -> Path:
        """What happened, a line each, and what the worker printed, attempt after attempt."""
        return self.path / "log.txt"

    # -- inside -----------------------------------------------------------------------------

    @contextmanager
    def _updating(self) -> Iterator[None]:
        with filelock.FileLock(self.path / ".run.json.lock", timeout=30, poll_interval=0.01):
            yield

    def _write_info(self, info: dict[str, Any]) -> None:
        disk.replace(self.path / "run.json", disk.json_text(info, indent=1).encode())

    def _append(self, file: Path, rows: Iterable[Row]) -> None:
        lines = "".join(map(_line, rows))
        if not lines:
            return
        if file not in self._appended:
            content = _read(file)
            if content and not content.endswith(b"\n"):  # torn by a writer that was killed
                os.truncate(file, content.rfind(b"\n") + 1)
            self._appended.add(file)
        disk.append(file, lines.encode())


def _line(row: Row) -> str:
    """A row as it stands in a file; a value that is no number is null there."""
    return disk.json_text({**row._asdict(), "value": float(row.value)}) + "\n"


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
    """Quotes texts that OmegaConf, other than YAML 1.1, would read as numbers: 1e-3."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> Any:
    try:
        float(text)
        style = "'"
    except ValueError:
        style = None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def stored_config(file: Path) -> dict[str, Any]:
    """A frozen config as plain values; `${...}` in it would read this machine's environment.

    Raises:
        ConfigError: it is no mapping, or holds a reference: what is frozen holds none.
    """
    try:
        plain = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{file} holds no config")
    if "${" in json.dumps(plain, default=str, ensure_ascii=False):
        raise ConfigError(f"{file} holds a reference (${{...}}), which a frozen config has not")
    return {str(key): value for key, value in plain.items()}


def _identity() -> str:
    return uuid.uuid4().hex


def without_traces(attempts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Attempts that no result goes back to: they have cost something, and no more."""
    return [{**attempt, "superseded": True} for attempt in attempts]


def _move_results(source: Path, target: Path) -> None:
    for name in _RESULTS:
        if (source / name).exists():
            _delete(target / name)
            (source / name).rename(target / name)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def exit_code(run: RunDirectory) -> int | None:
    """0 for a run that is done or pruned, 1 for one that failed and says why; None: not ended.

    A run that is tried again is "failed" without a reason until it begins. One that has its old
    results back failed, too.
    """
    info = run.info
    if info.get("rerun_error"):
        return 1
    if info.get("status") in (DONE, PRUNED):
        return 0
    return 1 if info.get("status") == FAILED and info.get("error") else None


class WatchedRun(RunDirectory):
    """The directory of a run that another process writes: whatever is written here is dropped."""

    def update(self, **fields: Any) -> None:
        """Nothing."""

    def log(self, rows: Iterable[Row]) -> None:
        """Nothing."""

    def truncate(self, step: int) -> None:
        """Nothing."""

    def write_samples(self, df: pd.DataFrame) -> None:
        """Nothing."""


def parse_rows(file: Path, content: bytes) -> list[Row]:
    """Rows of (a piece of) a metrics.jsonl; what stands after the last newline is torn."""
    rows = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            raw = json.loads(line)
            value = math.nan if raw["value"] is None else float(raw["value"])
            rows.append(Row(raw["name"], value, int(raw["step"]), raw["time"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                f"{file}, line {number} cannot be read: {line[:80]!r}. Delete that line, or begin "
                "the run anew with rerun=true"
            ) from error
    return rows


def now() -> float:
    """Seconds since the epoch: the clock of all rows and attempts."""
    return time.time()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def state_of(run: RunDirectory, info: Mapping[str, Any] | None = None) -> str:
    """What run.json says, but of a run that nobody works on any more: it was stopped.

    `info`: run.json, where the caller has read it.
    """
    info = run.info if info is None else info
    status = str(info.get("status", QUEUED))
    left = status == RUNNING and not run.busy
    return STOPPED if left or (status == QUEUED and info.get("attempts")) else status
