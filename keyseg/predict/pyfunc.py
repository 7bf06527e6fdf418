"""The logged model as MLflow loads it: rows of image and query in, predictions out.

    model = mlflow.pyfunc.load_model("runs:/ID/model")
    model.predict(pd.DataFrame({"image": ["street.jpg"], "query": ["the car that must wait"]}))

An image is a path, or the file itself in base64 (a data URI, too). Where the base weights have
moved, the environment variables KEYSEG_LLAVA and KEYSEG_SAM say where to, or
`load_model(uri, model_config={"llava": ..., "sam": ...})`. A GPU is used if there is one;
KEYSEG_DEVICE=cpu forbids it.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from keyseg.config import GENERATED, ConfigError, RunConfig
from keyseg.data.files import DataError
from keyseg.model.backbones.weights import WeightsError, check_trained_on, check_weights
from keyseg.predict.predictor import Predictor, reason
from keyseg.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas as pd


class PyfuncModel:
    """The model of a run behind MLflow's interface."""

    def __init__(self, run: RunDirectory, moved: Mapping[str, Any] | None = None) -> None:
        """`moved`: where the base weights are now, by the name of their key (llava, sam).

        Raises:
            WeightsError: a base weight is missing, or is not the one that the run was trained on.
        """
        cfg = _located(run.config, moved or {})
        try:
            check_trained_on(cfg, run.info)
        except ConfigError as error:
            raise WeightsError(str(error)) from error
        name = os.environ.get("KEYSEG_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
        self.predictor = Predictor(cfg, run.best_file, torch.device(name))

    def predict(
        self, rows: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """A dict for each row: answer, top_words, mask (COCO run lengths), predicted_iou ...

        A row that cannot be answered has its query and `error`, which says why; the others have
        theirs all the same. `params`: protocol, "generated" (default) or "teacher_forced".
        """
        protocol = str((params or {}).get("protocol") or GENERATED)
        answers = []
        pairs = zip(rows["image"], rows["query"], strict=True)
        with tempfile.TemporaryDirectory() as folder:
            for number, (image, query) in enumerate(pairs):
                try:
                    path = _image_file(str(image), Path(folder))
                    answers.append(self.predictor(path, [str(query)], protocol)[0].to_dict())
                except Exception as error:  # whatever it is, it is this row's
                    said = f"row {number}: {reason(error)}"
                    answers.append({"query": str(query), "error": said})
        return answers


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> PyfuncModel:
    """MLflow calls this, with the folder that `keyseg.tracking.model` wrote."""
    return PyfuncModel(RunDirectory(path), model_config)


def _located(cfg: RunConfig, moved: Mapping[str, Any]) -> RunConfig:
    """The config with the base weights where they are on this machine."""

    def place(key: str, before: str) -> str:
        return str(moved.get(key) or os.environ.get(f"KEYSEG_{key.upper()}") or before)

    choice = cfg.model
    language, mask = place("llava", choice.language_weights), place("sam", choice.mask_weights)
    cfg = replace(cfg, model=choice.with_weights(language, mask))
    try:
        check_weights(cfg)
    except ConfigError as error:
        raise WeightsError(
            f"{error}. Of a logged model: KEYSEG_LLAVA and KEYSEG_SAM in the environment, or "
            "model_config={'llava': ..., 'sam': ...} for load_model, say where they are"
        ) from error
    return cfg


def _image_file(image: str, folder: Path) -> Path:
    """The path that `image` is, or a file with the content that it holds."""
    if len(image) < 4096 and Path(image).is_file():
        return Path(image)
    content = image.partition(",")[2] if image.startswith("data:") else image
    try:
        decoded = base64.b64decode(content, validate=True)
    except binascii.Error:
        raise DataError(f"there is no image {image[:200]}, and it is not base64 either") from None
    file = folder / "image"
    file.write_bytes(decoded)
    return file
