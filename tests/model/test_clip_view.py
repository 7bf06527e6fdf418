"""What CLIP sees of images that are no squares, and how much of a target."""

import numpy as np
import pytest
import torch
from PIL import Image

from keyseg.config import ConfigError
from keyseg.model.backbones.clip_view import clip_pixels, padded, seen_slice
from keyseg.predict.exported_script import Exported
from keyseg.tiny.arch import make_processor


@pytest.fixture(scope="module")
def processor():
    return make_processor()


def stripes(height, width):
    """Left quarter red, right quarter blue, green in between."""
    picture = torch.zeros(3, height, width, dtype=torch.uint8)
    quarter = width // 4
    picture[0, :, :quarter] = picture[2, :, -quarter:] = 255
    picture[1, :, quarter:-quarter] = 255
    return picture


def shares(pixels, processor):
    """Of the view, by colour that is the strongest: red, green, blue."""
    mean, std = (
        torch.tensor(getattr(processor.image_processor, f"image_{name}"))[:, None, None]
        for name in ("mean", "std")
    )
    colours = pixels * std + mean
    bright = colours.max(dim=0).values > 0.75
    return [float(((colours.argmax(dim=0) == c) & bright).float().mean()) for c in range(3)]


@pytest.mark.parametrize(
    ("view", "wanted"),
    [
        ("crop", [0, 1, 0]),  # of 200 x 100 the middle square: no red, no blue
        ("pad", [1 / 8, 1 / 4, 1 / 8]),  # half of the square is padding
        ("squash", [1 / 4, 1 / 2, 1 / 4]),
    ],
)
def test_a_wide_picture(processor, view, wanted):
    pixels = clip_pixels(processor.image_processor, view, stripes(100, 200))
    crop = processor.image_processor.crop_size
    assert pixels.shape == (3, crop["height"], crop["width"])
    assert shares(pixels, processor) == pytest.approx(wanted, abs=0.06)


@pytest.mark.parametrize("view", ["pad", "squash"])
def test_of_a_square_every_view_is_the_same(processor, view):
    picture = stripes(96, 96)
    same = clip_pixels(processor.image_processor, "crop", picture)
    torch.testing.assert_close(clip_pixels(processor.image_processor, view, picture), same)


@pytest.mark.parametrize("size", [(60, 100), (101, 60)])
@pytest.mark.parametrize("view", ["crop", "pad", "squash"])
def test_an_export_gives_clip_the_same(processor, view, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    exported = Exported.__new__(Exported)
    exported.processor = processor
    exported.about = {"clip_view": view, "placeholder": "<image>", "reads": {}}
    found = exported._see(Image.fromarray(pixels))["pixel_values"][0]
    wanted = clip_pixels(processor.image_processor, view, torch.from_numpy(pixels).permute(2, 0, 1))
    torch.testing.assert_close(found, wanted)


def test_padding_stands_around_the_picture():
    square = padded(torch.full((3, 2, 4), 9, dtype=torch.uint8), (1.0, 0.5, 0.0))
    assert square[:, 0, 0].tolist() == [255, 128, 0]
    assert (square[:, 1:3] == 9).all()
    assert (square[0, [0, 3]] == 255).all()


@pytest.mark.parametrize(
    ("columns", "view", "wanted"),
    [
        ((80, 560), "crop", "all"),  # what CLIP sees of 640 x 480
        ((79, 560), "crop", "most"),
        ((40, 120), "crop", "most"),
        ((39, 120), "crop", "part"),
        ((0, 80), "crop", "none"),
        ((560, 640), "crop", "none"),
        ((0, 80), "pad", "all"),
        ((0, 80), "squash", "all"),
        ((0, 0), "crop", "all"),  # no target
    ],
)
def test_the_share_of_a_target(columns, view, wanted):
    target = torch.zeros(480, 640, dtype=torch.bool)
    target[100:200, slice(*columns)] = True
    assert seen_slice(target, view) == wanted
    assert seen_slice(target.T, view) == wanted


def test_features_of_another_view_are_stored_apart(make_parts, compose_run):
    def key(*overrides):
        return make_parts(*overrides)[0].features.encoders[0].key

    assert "view" not in key()  # what is stored already is found
    assert key("model.clip_view=pad")["view"] == "pad"
    with pytest.raises(ConfigError, match="must be one of crop, pad, squash"):
        compose_run("model.clip_view=all")
