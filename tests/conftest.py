import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from keyseg.config import PROJECT, RunConfig
from keyseg.sweep.compose import Composer
from tests.outside import package, real_sweep, shell  # noqa: F401 - fixtures
from tests.plain import plain_for

Compose = Callable[..., RunConfig]

TESTS = Path(__file__).parent
SERVER = ("browser", "slurm", "tracking/test_postgres.py")
"""Folders and files whose tests start a server: the marker `server`."""
SLOW = (
    "commands/test_data.py",
    "commands/test_evaluate.py",
    "commands/test_features.py",
    "commands/test_import_predictions.py",
    "data/keywords/test_command.py",
    "data/test_bruegel.py",
    "data/test_public.py",
    "data/test_scenes.py",
    "model/test_features.py",
    "model/test_keyseg.py",
    "model/test_manifest.py",
    "model/test_quantization.py",
    "predict",
    "report/test_bundle.py",
    "report/test_drops.py",
    "report/test_evaluations.py",
    "report/test_factorial.py",
    "report/test_figures.py",
    "report/test_imported.py",
    "report/test_joined.py",
    "report/test_looks.py",
    "report/test_not_asked.py",
    "report/test_report.py",
    "report/test_simulation.py",
    "report/test_stopping.py",
    "report/test_training.py",
    "report/test_tuning.py",
    "runs/test_code.py",
    "runs/test_text_encoding.py",
    "sweep/test_cells.py",
    "sweep/test_compose.py",
    "sweep/test_damaged.py",
    "sweep/test_launcher.py",
    "sweep/test_overrides.py",
    "sweep/test_preflight.py",
    "sweep/test_reuse.py",
    "sweep/test_single.py",
    "sweep/test_stale.py",
    "sweep/test_supervise.py",
    "sweep/test_sweep_files.py",
    "sweep/test_tune.py",
    "sweep/test_tune_control.py",
    "sweep/test_tune_faults.py",
    "sweep/test_tune_pruning.py",
    "sweep/test_tune_study.py",
    "sweep/test_tune_tracking.py",
    "test_benchmarks.py",
    "test_extending.py",
    "tiny",
    "tracking",
    "train",
    "worker",
)
"""Folders and files whose tests train, draw, build whole sweeps or wait for other processes: the
marker `slow`. `make quick` takes 90 s: what takes more than a tenth of a second a test is here."""
FIRST = (
    "slurm",
    "test_extending.py",
    "browser/test_mlflow_page.py",
    "worker",
    "train",
    "report/test_report.py",
    "sweep/test_launcher.py",
    "tracking/test_postgres.py",
    "sweep/test_preflight.py",
    "model/test_keyseg.py",
    "commands/test_evaluate.py",
    "predict",
    "tracking",
    "sweep",
    "test_config.py",
    "model/test_fusion.py",
    "test_signature.py",
)
"""What takes longest, the longest first: at the end of a run no process should be alone."""


def pytest_configure(config: pytest.Config) -> None:
    """Processes of tests can be interrupted, also where the tests run in the background.

    A shell starts `make test &` with SIGINT ignored, and whoever is started from there inherits it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("quick"):  # peft imports it where it is there: seconds that nobody needs
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make quick`."""
    parser.addoption("--quick", action="store_true", help="no test that is slow or needs a server")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Quick runs do not even read the files of the others: their imports take seconds."""
    return (config.getoption("quick") and _in(collection_path, (*SERVER, *SLOW))) or None


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file is the work of one process."""
    from tests.sharing import Sharing

    return Sharing(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(tryfirst=True)  # before processes tell pytest-xdist what they have collected
def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Mark what quick runs leave out, and begin with it: what comes last should be short."""
    for item in items:
        for marker, places in (("server", SERVER), ("slow", SLOW)):
            if _in(item.path, places):
                item.add_marker(marker)
    left_out = [i for i in items if i.get_closest_marker("slow") or i.get_closest_marker("server")]
    first = set(left_out)
    rest = [item for item in items if item not in first]
    if config.getoption("quick"):
        config.hook.pytest_deselected(items=left_out)
        left_out = []
    items[:] = [*sorted(left_out, key=_order), *sorted(rest, key=_order)]


def _order(item: pytest.Item) -> int:
    """Place in FIRST."""
    return next((n for n, place in enumerate(FIRST) if _in(item.path, (place,))), len(FIRST))


def _in(path: Path, places: tuple[str, ...]) -> bool:
    place = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    return any(place == name or place.startswith(f"{name}/") for name in places)


@pytest.fixture(scope="module", autouse=True)
def clean_checkout(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves anything in the checkout: tests write to `tmp_path`."""
    before = _changed()
    yield
    left = sorted(_changed() - before)
    assert not left, f"{request.node.name} changed the checkout: {', '.join(left)}"


def _changed() -> set[str]:
    """New files, and in CI changed ones, too: elsewhere somebody may edit while tests run."""
    command = ["git", "-C", str(PROJECT), "status", "--porcelain"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return {line for line in lines if line.startswith("??") or "CI" in os.environ}


@pytest.fixture(scope="session")
def compose_run() -> Compose:
    """From overrides to a checked config, as `python run.py -m OVERRIDES` composes its cells.

    Of `PLAIN`, but where a sweep's file says of what. What differs in values only is composed
    once: tests/sweep/test_compose.py holds that this is the config that Hydra alone would make.
    """

    def with_hydra(overrides: Sequence[str]) -> DictConfig:
        with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
            return compose("config", [*plain_for(overrides), *overrides])

    composed = cache(Composer(with_hydra))
    return lambda *overrides: deepcopy(composed(overrides))


@pytest.fixture
def run_config(compose_run: Compose) -> RunConfig:
    """A run as it comes."""
    return compose_run()


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA folder of the bundled one's form, with random weights."""
    import torch

    from keyseg.tiny.arch import make_llava, make_processor

    folder = tmp_path_factory.mktemp("llava")
    processor = make_processor()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make_llava(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM folder of the bundled one's form, with random weights."""
    import torch
    from safetensors.torch import save_file

    from keyseg.model.backbones.sam import build_sam
    from keyseg.tiny.arch import SAM_SIZES

    folder = tmp_path_factory.mktemp("sam")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(build_sam(SAM_SIZES).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SAM_SIZES))
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, to be copied: they take seconds to make.

    Made once for all processes of pytest-xdist.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    file = folder / "empty.db"
    with filelock.FileLock(folder / "empty.lock"):
        if not file.exists():
            from keyseg.tracking.store import client_of

            client_of(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenes data set with a dozen pictures: seed 0, train 6, val 3, test 3 of each kind."""
    from keyseg.data.scenes import prepare

    folder = tmp_path_factory.mktemp("data") / "scenes"
    counts = {"train": 6, "val": 3, "test": 3}
    prepare(folder, seed=0, refer=counts, reason=counts)
    return folder


@pytest.fixture(scope="session")
def small_overrides(
    llava_folder: Path,
    sam_folder: Path,
    scenes_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, ...]:
    """What makes a run small: random backbones and a dozen pictures."""
    counts = "{train: 6, val: 3, test: 3}"
    return (
        f"model.llava={llava_folder}",
        f"model.sam={sam_folder}",
        f"data.root={scenes_folder}",
        f"paths.data={tmp_path_factory.mktemp('features')}",
        f"data.prepare.refer={counts}",
        f"data.prepare.reason={counts}",
        "optim.images_per_step=2",
        "model.frozen=fp32",  # so that parts can be called without autocast
        "runtime.device=cpu",
    )


@pytest.fixture(scope="session")
def small_run(compose_run: Compose, small_overrides: tuple[str, ...]) -> Compose:
    """Like `compose_run`, on random backbones and a dozen pictures."""
    return lambda *overrides: compose_run(*small_overrides, *overrides)


@pytest.fixture(scope="session")
def shake() -> Callable[[Any], None]:
    """Moves all that is trained: LoRA's second factor starts at 0 and hides what the first does."""
    import torch

    def move(module: Any) -> None:
        rng = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype)
                    parameter += 0.1 * noise

    return move


@pytest.fixture(scope="session")
def make_parts(small_run: Compose, shake: Callable[[Any], None]) -> Callable[..., Any]:
    """The parts of a small run and its config; `shaken` moves all that is trained."""
    import torch

    from keyseg.data.mix import load_splits
    from keyseg.train import build as building
    from keyseg.train.build import build, with_others

    kept: dict[str, Any] = {}

    def preload(cfg: RunConfig) -> None:
        """As a worker of several cells does: reading the files takes most of the time."""
        key = building._backbones_key(cfg)
        if key not in kept:
            building.preload_backbones(cfg)
            kept[key] = building._preloaded.pop(key, None)
        if kept[key] is not None:  # random weights are not
            building._preloaded[key] = deepcopy(kept[key])

    def make(*overrides: str, shaken: bool = True) -> Any:
        cfg = small_run(*overrides)
        preload(cfg)
        torch.manual_seed(cfg.seed)
        parts = build(cfg, torch.device("cpu"))
        if parts.model.fusion.key_from == "other":
            every = ([e for s in split for e in s.examples] for split in load_splits(cfg.data))
            parts = with_others(parts, *every)
        if shaken:
            shake(parts.model)
        return parts, cfg

    return make


@pytest.fixture(scope="session")
def make_finished(
    make_parts: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """The directory of a run that is done (SWEEP/SIGNATURE), what it trained moved at random."""
    from safetensors.torch import save_file

    from keyseg.config import signature
    from keyseg.model.backbones.weights import weights_fingerprint
    from keyseg.model.manifest import trainable
    from keyseg.runs.run_directory import DONE, RunDirectory

    def make(*overrides: str, outputs: Path | None = None) -> RunDirectory:
        parts, cfg = make_parts("model.precision=fp32", *overrides)
        name = signature(cfg)
        outputs = outputs or tmp_path_factory.mktemp("outputs")
        run = RunDirectory.create(outputs / "fusion" / name, cfg, label=str(cfg.fusion["name"]))
        state = {k: v.detach().contiguous() for k, v in trainable(parts.model).items()}
        save_file(state, run.best_file)
        scores = {"teacher_forced": {"giou": 0.5, "ciou": 0.25, "keyword_accuracy": 1.0}}
        run.update(status=DONE, weights_fingerprint=weights_fingerprint(cfg), summary=scores)
        return run

    return make


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts files into a Hugging Face cache under a hub id; whoever asks the network fails.

    Without a network, asking for what is there, or should be, takes two minutes of retries.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.create_connection", touched)
    monkeypatch.setattr("socket.getaddrinfo", touched)

    def put(name: str, files: Iterable[Path]) -> Path:
        repo = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = repo / "snapshots/abc"
        for folder in (repo / "refs", snapshot):
            folder.mkdir(parents=True)
        (repo / "refs/main").write_text("abc")
        for file in files:
            (snapshot / file.name).symlink_to(file)
        return snapshot

    return put
