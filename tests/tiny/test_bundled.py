"""The files that `model=tiny` and `model=bruegel` load are what the recipe of their world makes."""

import json

import pytest

from keyseg.config import resolve_path
from keyseg.data.scenes.worlds import BRUEGEL, PLAIN_WORLD
from keyseg.tiny.arch import GRID, SAM_SIZES
from keyseg.tiny.curriculum import CURRICULA
from tests.conftest import Compose


@pytest.mark.parametrize(("model", "world"), [("tiny", PLAIN_WORLD), ("bruegel", BRUEGEL)])
def test_bundled_backbones_know_the_words_and_the_sizes_of_their_world(
    model: str, world: str, compose_run: Compose
) -> None:
    choice = compose_run(f"model={model}").model
    llava, sam = resolve_path(str(choice.llava)), resolve_path(str(choice.sam))
    words = json.loads((llava / "tokenizer.json").read_text())["model"]["vocab"]
    curriculum = CURRICULA[world]
    assert {w for text in curriculum.said for w in text.split()} <= set(words)
    vision = json.loads((llava / "config.json").read_text())["vision_config"]
    assert vision["image_size"] == GRID * curriculum.patch
    assert json.loads((sam / "config.json").read_text()) == SAM_SIZES


def test_what_bruegels_backbones_know_is_far_from_chance(compose_run: Compose) -> None:
    choice = compose_run("model=bruegel").model
    known = json.loads((resolve_path(str(choice.llava)) / "scores.json").read_text())
    drawn = json.loads((resolve_path(str(choice.sam)) / "scores.json").read_text())
    assert known["where"] > 4 * known["chance"]
    assert drawn["box"] > drawn["point"] > 0.6
