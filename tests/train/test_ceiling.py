"""What SAM draws from true boxes: measured once for data and weights, and high on the default."""

import pytest
import torch

from keyseg.data.mix import groups, load
from keyseg.train import ceiling
from keyseg.train.build import build_features

CPU = torch.device("cpu")


@pytest.fixture
def made(compose_run, scenes_folder, tmp_path):
    """The bundled SAM's features of a dozen pictures, in a store of their own."""
    counts = "{train: 6, val: 3, test: 3}"
    cfg = compose_run(
        f"data.root={scenes_folder}",
        f"data.prepare.refer={counts}",
        f"data.prepare.reason={counts}",
        f"paths.data={tmp_path}",
        "runtime.device=cpu",
    )
    images = groups(e for source in load(cfg.data, "train") for e in source.examples)
    return cfg, build_features(cfg, CPU), images


def test_true_boxes_give_good_masks_and_others_do_not(made, monkeypatch):
    cfg, features, images = made
    found = ceiling.box_ceiling(cfg, features, images, "these", CPU)
    assert found["targets"] == sum(len(group.examples) for group in images)
    assert found["giou"] > 0.75
    assert 0.75 < found["ciou"] < 1
    monkeypatch.setattr(ceiling, "_box", lambda _: torch.tensor([10.0, 10.0, 40.0, 40.0]))
    assert ceiling.box_ceiling(cfg, features, images, "others", CPU)["giou"] < 0.3


def test_it_is_measured_once_for_data_and_weights(made, monkeypatch):
    cfg, features, images = made
    first = ceiling.box_ceiling(cfg, features, images[:1], "these", CPU)
    monkeypatch.setattr(ceiling, "_measure", lambda *_: {"giou": 2.0})
    assert ceiling.box_ceiling(cfg, features, images[:1], "these", CPU) == first
    assert ceiling.box_ceiling(cfg, features, images[:1], "others", CPU) == {"giou": 2.0}
    assert ceiling.box_ceiling(cfg, features, images[:2], "these", CPU) == {"giou": 2.0}


def test_a_memory_that_is_damaged_or_cannot_be_written_ends_no_run(made, monkeypatch, tmp_path):
    """It is asked for when the training and the test split are done."""
    cfg, features, images = made
    measured = []
    monkeypatch.setattr(ceiling, "_measure", lambda *_: measured.append(1) or {"giou": 0.5})
    ceiling.box_ceiling(cfg, features, images, "these", CPU)
    (file,) = (tmp_path / "ceilings").glob("*.json")
    file.write_text('{"giou": ')
    assert ceiling.box_ceiling(cfg, features, images, "these", CPU) == {"giou": 0.5}
    file.unlink()
    (tmp_path / "ceilings").rmdir()
    (tmp_path / "ceilings").write_text("no folder")
    assert ceiling.box_ceiling(cfg, features, images, "these", CPU) == {"giou": 0.5}
    assert len(measured) == 3


def test_random_weights_and_features_that_are_not_kept_have_none(made):
    cfg, features, images = made
    features.store = None
    assert ceiling.box_ceiling(cfg, features, images, "these", CPU) is None
    cfg.model.init = "random"
    assert ceiling.box_ceiling(cfg, build_features(cfg, CPU), images, "these", CPU) is None
