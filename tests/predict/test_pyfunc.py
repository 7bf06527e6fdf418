"""The MLflow model of a run says in a fresh process what the run says here."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch

from keyseg.data.mix import groups, load
from keyseg.model.backbones.sam import WeightsError
from keyseg.predict.predictor import Predictor
from keyseg.predict.pyfunc import PyfuncModel
from keyseg.tracking import sync
from keyseg.tracking.store import client_of

# MLflow and what it stands on warn on their own account.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def run(make_finished):
    return make_finished("fusion=full")


@pytest.fixture(scope="module")
def group(run):
    return groups(e for s in load(run.config.data, "test") for e in s.examples)[0]


@pytest.fixture(scope="module")
def wanted(run, group):
    predictor = Predictor(run.config, run.best_file, torch.device("cpu"))
    found = predictor(group.image, ["the ball"], "teacher_forced")[0]
    assert 0 < found.mask.mean() < 1
    return found.to_dict()


@pytest.fixture(scope="module")
def model(run):
    return PyfuncModel(run)


@pytest.fixture
def store(empty_store, tmp_path, monkeypatch):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_mlflow_models_predict_gives_the_same_mask(run, group, wanted, store):
    sync.sync(run)
    asked = {
        "dataframe_split": {
            "columns": ["image", "query"],
            "data": [[str(group.image), "the ball"]],
        },
        "params": {"protocol": "teacher_forced"},
    }
    (store / "in.json").write_text(json.dumps(asked))
    uri = f"runs:/{run.info['mlflow_run_id']}/model"
    line = f"models predict -m {uri} --env-manager local -i in.json -o out.json -t json"
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *line.split()],
        cwd=store,  # keyseg comes from the model's own code, or is installed
        env={**os.environ, "KEYSEG_DEVICE": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((store / "out.json").read_text())["predictions"]
    assert found == wanted


def test_what_is_logged_is_small_and_logged_once(run, store, monkeypatch):
    sync.sync(run)
    client = client_of(sync.store_uri())
    (logged,) = client.get_run(run.info["mlflow_run_id"]).outputs.model_outputs
    assert client.get_logged_model(logged.model_id).status == "READY"
    sizes, folders = [], [None]
    while folders:
        for file in client.list_logged_model_artifacts(logged.model_id, folders.pop()):
            folders += [file.path] if file.is_dir else []
            sizes += [] if file.is_dir else [(file.path, file.file_size)]
    trained = run.best_file.stat().st_size
    assert sum(size for _, size in sizes) < trained + 1_000_000  # code; backbones: 8 MB
    assert len(sizes) < 150
    assert any(path.endswith("code/keyseg/predict/pyfunc.py") for path, _ in sizes)
    monkeypatch.setattr("keyseg.tracking.model.write", None)
    sync.sync(run)


def test_a_run_that_logs_no_model(run, store, monkeypatch):
    monkeypatch.setattr("keyseg.tracking.model.write", None)
    cfg = run.config
    quiet = replace(cfg, runtime=replace(cfg.runtime, log_model=False))
    monkeypatch.setattr(type(run), "config", quiet)
    sync.sync(run)
    client = client_of(sync.store_uri())
    assert not client.get_run(run.info["mlflow_run_id"]).outputs.model_outputs


def test_an_image_as_text(model, group, wanted):
    content = base64.b64encode(group.image.read_bytes()).decode()
    for image in (str(group.image), content, f"data:image/png;base64,{content}"):
        rows = pd.DataFrame({"image": [image], "query": ["the ball"]})
        assert model.predict(rows, {"protocol": "teacher_forced"}) == [wanted]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", "row 1: there is no image none.png, and it is not base64 either"),
        (base64.b64encode(b"no picture").decode(), "row 1: .* is not an image that can be read"),
    ],
)
def test_a_bad_row_is_one_bad_row(model, group, wanted, image, message):
    images = [str(group.image), image, str(group.image)]
    rows = pd.DataFrame({"image": images, "query": ["the ball", "it", "<image> the ball"]})
    first, bad, third = model.predict(rows, {"protocol": "teacher_forced"})
    assert first == wanted
    assert re.match(message, bad["error"])
    assert bad["query"] == "it"
    assert third["query"] == "<image> the ball"
    assert third["answer"]


def test_weights_that_moved(run, monkeypatch, tmp_path, llava_folder, sam_folder):
    with pytest.raises(WeightsError, match=r"model\.llava=/no: .*KEYSEG_LLAVA and KEYSEG_SAM"):
        PyfuncModel(run, {"llava": "/no"})
    (tmp_path / "llava").symlink_to(llava_folder)
    monkeypatch.setenv("KEYSEG_LLAVA", str(tmp_path / "llava"))
    moved = PyfuncModel(run, {"sam": str(sam_folder)})
    assert moved.predictor.cfg.model.llava == str(tmp_path / "llava")
    (tmp_path / "other").mkdir()
    for file in llava_folder.iterdir():
        source = sam_folder if file.name == "model.safetensors" else llava_folder
        (tmp_path / "other" / file.name).symlink_to(source / file.name)
    monkeypatch.setenv("KEYSEG_LLAVA", str(tmp_path / "other"))
    with pytest.raises(WeightsError, match="are not the weights that run"):
        PyfuncModel(run)
