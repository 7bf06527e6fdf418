"""The store of frozen features: what is found is what would be computed, or it is computed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from keyseg.data.mix import groups, load
from keyseg.model.backbones.encoders import Encoder
from keyseg.model.backbones.sam import load_sam, preprocess
from keyseg.model.features import FrozenFeatures, Store, folder_name, read_image, stored_bytes
from keyseg.train.build import build, load_backbones
from keyseg.train.evaluate import evaluate
from tests.forked import Forked

CPU = torch.device("cpu")


class Mean(torch.nn.Module):
    """Counts its calls; its output depends on a weight and on the picture."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(float(weight)))
        self.calls = 0

    def forward(self, pixels):
        self.calls += 1
        return ((pixels.mean((2, 3), keepdim=True) * self.weight)[0],)


@pytest.fixture
def make_features(tmp_path):
    """Features of two counting encoders; a store in tmp_path with a limit."""

    def make(weight=2, limit=2**30, dtype=torch.bfloat16):
        encoders = []
        for name in ("clip", "sam"):
            module = Mean(weight)
            encoders.append(
                Encoder(
                    name=name,
                    title=name,
                    parameters=1,
                    key={"weights": weight},
                    load=lambda module=module: module,
                    preprocess=lambda picture: {"pixels": picture.float()[None]},
                    autocast=torch.no_grad,
                    dtype=dtype,
                )
            )
        return FrozenFeatures(*encoders, Store(tmp_path / "features", limit))

    return make


@pytest.fixture
def images(tmp_path):
    """Three pictures; the third has the content of the first."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        pixels = np.random.default_rng(i % 2).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def files(tmp_path):
    return sorted((tmp_path / "features").rglob("*.safetensors"))


def test_computed_once_and_found_by_others(make_features, images, tmp_path):
    first = make_features()
    one = first(images)
    assert first.computed == 4  # two pictures, two encoders: the third picture is the first
    assert len(files(tmp_path)) == 4
    assert one.sizes == [(6, 8)] * 3
    assert one.language[0].dtype == torch.bfloat16
    wanted = read_image(images[1]).float().mean((1, 2)) * 2
    assert torch.equal(one.language[0].reshape(3, 3)[1], wanted.bfloat16())
    second = make_features()
    two = second(images)
    assert second.computed == 0
    assert not any(e.is_loaded for e in second.encoders)
    assert torch.equal(one.language[0], two.language[0])
    assert torch.equal(one.mask[0], two.mask[0])
    assert one.sizes == two.sizes


def test_other_weights_and_other_pictures_have_other_names(make_features, images):
    make_features()(images[:1])
    other = make_features(weight=3)
    assert torch.equal(other(images[:1]).mask[0], make_features(weight=3)(images[:1]).mask[0])
    assert other.computed == 2
    Image.new("RGB", (8, 6), "red").save(images[0])
    changed = make_features()
    assert changed(images[:1]).mask[0].flatten().tolist() == [510, 0, 0]
    assert changed.computed == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text", "dtype"])
def test_a_damaged_file_is_computed_again_and_mended(make_features, images, tmp_path, damage):
    wanted = make_features()(images[:1])
    for file in files(tmp_path):
        content = bytearray(file.read_bytes())
        if damage == "flip":
            content[-1] ^= 1
        broken = {"cut": content[:-2], "empty": b"", "text": b"no such file"}
        if damage == "dtype":
            broken["dtype"] = bytes(content).replace(b'"BF16"', b'"F16" ')
        file.write_bytes(broken.get(damage, content))
    again = make_features()
    found = again(images[:1])
    assert torch.equal(found.language[0], wanted.language[0])
    assert again.store.damaged == again.computed == 2
    mended = make_features()
    assert torch.equal(mended(images[:1]).mask[0], wanted.mask[0])
    assert mended.computed == 0


def test_beyond_the_limit_features_are_computed_and_not_stored(make_features, images, tmp_path):
    bounded = make_features(limit=20)
    for _ in range(2):
        bounded(images[:2])
    stored = sum(f.stat().st_size for f in files(tmp_path))
    assert 0 < len(files(tmp_path)) < 4
    assert stored <= stored_bytes(tmp_path / "features")
    assert "features_gib" in bounded.store.problem
    assert bounded.computed > 4


def test_a_folder_that_cannot_be_written_stops_nothing(make_features, images, tmp_path):
    (tmp_path / "features").write_text("a file where the folder should be")
    features = make_features()
    assert features(images).mask[0].shape == (3, 3, 1, 1)
    assert str(tmp_path / "features") in features.store.problem


def test_what_is_missing(make_features, images):
    features = make_features()
    features(images[1:2])
    assert features.missing(images) == [images[0], images[2]]
    features(images)
    assert features.missing(images) == []


def test_the_folder_says_what_it_holds(make_features, images, tmp_path):
    features = make_features()
    features(images[:1])
    about = tmp_path / "features" / folder_name(features.encoders[0]) / "key.json"
    assert json.loads(about.read_text()) == {"weights": 2}
    assert {f.name[0] for f in (tmp_path / "features").rglob("*") if f.is_file()} >= {"k"}
    assert not list((tmp_path / "features").rglob(".*"))  # nothing half-written stays


def write_and_read(folder: Path) -> None:
    """Ten features forty times over; every one that is found is whole."""
    encoder = Encoder("sam", "sam", 1, {"a": 1}, None, None, None, torch.float32)
    for _ in range(40):
        for image in range(10):
            value = torch.full((64, 16, 16), float(image))
            store = Store(folder, 2**30)
            found = store.read(encoder, f"{image:032d}")
            assert found is None or (torch.equal(found[0][0], value) and found[1] == (1, image))
            assert not store.damaged, "a half-written file was seen"
            store.write(encoder, f"{image:032d}", (value,), (1, image))


def test_many_processes_read_and_write_at_the_same_time(tmp_path):
    log = tmp_path / "said.txt"
    running = [Forked(write_and_read, tmp_path / "f", log=log) for _ in range(4)]
    assert [process.wait(300) for process in running] == [0] * 4, log.read_text()
    assert log.read_text() == ""


def test_the_real_encoders_see_what_llava_and_sam_see(small_run):
    """CLIP's layer and patches as LLaVA takes them; SAM's embedding; in the run's precision."""
    cfg = small_run("model.precision=fp32", "runtime.features=false")
    parts = build(cfg, CPU)
    group = groups(e for s in load(cfg.data, "val") for e in s.examples)[0]
    found = parts.features([group.image])
    side, _ = load_backbones(cfg, CPU)
    llava, processor = side.model, side.processor
    picture = read_image(group.image)
    pixels = processor.image_processor([picture], return_tensors="pt")["pixel_values"]
    sam = load_sam(Path(cfg.model.sam), "folder")
    with torch.no_grad():
        tower = llava.model.vision_tower(pixels, output_hidden_states=True)
        layer = llava.config.vision_feature_layer
        wanted = tower.hidden_states[layer][:, 1:]
        projected = torch.stack(list(llava.get_image_features(pixels).pooler_output))
        torch.testing.assert_close(found.language[0], wanted[0])
        torch.testing.assert_close(parts.model.vlm.project(found.language)[0], projected[0])
        embedding = sam.image_encoder(preprocess(128, picture)[None])
    torch.testing.assert_close(found.mask[0], embedding)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_scores_bit_by_bit_with_and_without_the_store(small_run, precision, tmp_path):
    rows = []
    options = (f"model.precision={precision}", f"paths.data={tmp_path}")
    for features in ("false", "true", "true"):
        cfg = small_run(*options, f"runtime.features={features}")
        torch.manual_seed(0)
        parts = build(cfg, CPU)
        images = groups(e for s in load(cfg.data, "val") for e in s.examples)[:3]
        rows.append(list(evaluate(parts, images, cfg, "teacher_forced")))
        assert (parts.features.store is None) == (features == "false")
    assert parts.features.computed == 0
    assert not any(e.is_loaded for e in parts.features.encoders)
    assert rows[0] == rows[1] == rows[2]
