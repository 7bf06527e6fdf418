"""The MLflow model of a finished run: its config, what it trained, and the code that reads both.

A folder that `mlflow models predict | serve` and `mlflow.pyfunc.load_model` take; the base weights
are named in it, not copied. `keyseg.predict.pyfunc` is what MLflow loads.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import keyseg
from keyseg.config import GENERATED, LossConfig, resolve_path
from keyseg.model.backbones.weights import is_hub_id
from keyseg.runs import packages
from keyseg.runs.private_files import holds_a_secret, looks_secret
from keyseg.runs.provenance import CODE_ENDINGS
from keyseg.runs.run_directory import RunDirectory

ARTIFACT = "model"
"""Of the artifact: runs:/ID/model."""

_NEEDS = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "peft",
    "segment-anything",
    "safetensors",
    "omegaconf",
    "numpy",
    "pandas",
    "pycocotools",
    "pillow",
    "pyyaml",
    "filelock",
)
_NOT_COPIED = (
    "__pycache__",
    "weights",
    "commands",
    "dialects",
    "predictions",
    "report",
    "scenes",
    "sweep",
    "tiny",
    "tracking",
    "worker",
)
"""Folders of the code that no prediction needs."""
_KEPT = ("signature", "label", "seed", "weights_fingerprint")
"""Of run.json."""


def _left_out(folder: str, names: list[str]) -> set[str]:
    """What of a folder of the code is not copied; for shutil.copytree."""
    files = {n: f for n in names if (f := Path(folder, n)).is_file()}
    secret = {n for n in names if looks_secret(n)}
    secret |= {n for n, f in files.items() if holds_a_secret(f)}
    no_code = {n for n, f in files.items() if f.suffix not in CODE_ENDINGS}
    return shutil.ignore_patterns(*_NOT_COPIED)(folder, names) | secret | no_code


def write(run: RunDirectory, folder: Path) -> None:
    """Write the model of a run into `folder`, which must not exist."""
    import pandas as pd

    with warnings.catch_warnings():  # importing it, MLflow warns of a type hint of its own
        warnings.filterwarnings("ignore", ".*AnyType", UserWarning)
        import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    inputs = Schema([ColSpec(DataType.string, name) for name in ("image", "query")])
    params = ParamSchema([ParamSpec("protocol", DataType.string, GENERATED)])
    with tempfile.TemporaryDirectory() as temporary:
        data, code = Path(temporary) / "run", Path(temporary) / "keyseg"
        data.mkdir()
        cfg = run.config
        language, mask = (
            name if is_hub_id(name) else str(resolve_path(name))
            for name in (cfg.model.language_weights, cfg.model.mask_weights)
        )
        kept = RunDirectory(data)
        terms = _by_target(cfg.loss)
        kept.freeze(replace(cfg, model=cfg.model.with_weights(language, mask), loss=terms))
        kept.checkpoints.mkdir()
        shutil.copyfile(run.best_file, kept.best_file)
        info = {key: run.info.get(key) for key in _KEPT}
        (data / "run.json").write_text(json.dumps(info))
        package = Path(keyseg.__file__).parent
        shutil.copytree(package, code, ignore=_left_out)
        others = Path(temporary) / "others"
        needed = [str(package.copy(others)) for package in packages.carried([cfg])]
        mlflow.pyfunc.save_model(
            folder,
            loader_module="keyseg.predict.pyfunc",
            data_path=str(data),
            code_paths=[str(code), *needed],
            pip_requirements=[f"{name}=={version(name)}" for name in _NEEDS],
            signature=ModelSignature(inputs=inputs, params=params),
            input_example=pd.DataFrame({"image": ["street.jpg"], "query": ["the red car"]}),
        )


def _by_target(cfg: LossConfig) -> LossConfig:
    """Terms by the path to their function: where the model is loaded, no package has joined."""
    if not cfg.terms:
        return cfg
    from keyseg.train.losses import weighted_terms  # loads torch

    functions = {term.name: term.term.function for term in weighted_terms(cfg)}
    terms = {
        name: {**spec, "_target_": f"{functions[name].__module__}.{functions[name].__qualname__}"}
        for name, spec in cfg.terms.items()
    }
    return replace(cfg, terms=terms)
