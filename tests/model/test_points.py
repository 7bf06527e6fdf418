"""Points from likeness, held against READ's rule as it is described, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from keyseg.config import ConfigError, PointsConfig
from keyseg.data import reading
from keyseg.data.mix import ImageSampler
from keyseg.model.backbones.sam import SegmentAnything
from keyseg.model.points import NEITHER, NOT_THIS, THIS, PointPrompts, _moved, points_of
from keyseg.runs import targets
from keyseg.sweep import buildable


def unit(values):
    return (values - values.min()) / (values.max() - values.min())


def fitted(square, size, fill):
    """The middle square, and the strips that it does not show."""
    side, scale = len(square), len(square) / min(size)
    rows, columns = ((int(length * scale) - side) // 2 for length in size)
    return F.pad(square, (columns, columns, rows, rows), value=fill)


def resized(square, *size):
    return F.interpolate(square[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def sought(likeness, size, *, count=30, above=0.8, below=0.2, pool=2):
    """Every weight over every pixel, as READ has it."""
    side = math.isqrt(len(likeness))
    grid = likeness.float().view(side, side)
    coarse = fitted(unit(resized(grid, side // pool, side // pool)), size, -1)
    height, width = size
    fine = resized(fitted(resized(unit(grid), 336, 336), size, 0), height, width)
    share = fine.flatten().softmax(0).view(height, width).double()
    values = coarse.flatten().tolist()
    this = sorted((n for n, v in enumerate(values) if v >= above), key=lambda n: -values[n])
    other = sorted((n for n, v in enumerate(values) if 0 <= v <= below), key=lambda n: values[n])
    rest = [n for n, v in enumerate(values) if below < v < above]
    points, labels = [], []
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for n in [*this, *other, *rest][:count]:
        row, column = divmod(n, coarse.shape[1])
        x = int(min((column + 0.5) * width / coarse.shape[1], width - 1))
        y = int(min((row + 0.5) * height / coarse.shape[0], height - 1))
        weight = torch.exp(-((xs - x) ** 2 + (ys - y) ** 2).double()) * share
        weight = weight / weight.sum()
        points.append([float((weight * xs).sum()), float((weight * ys).sum())])
        labels.append(THIS if n in this else NOT_THIS if n in other else NEITHER)
    return torch.tensor(points), torch.tensor(labels)


@pytest.mark.parametrize("size", [(48, 48), (40, 90), (101, 60)])
@pytest.mark.parametrize("rule", [{}, {"count": 60, "above": 0.6, "pool": 1}])
def test_points_are_those_of_the_description(size, rule):
    likeness = torch.randn(64, generator=torch.Generator().manual_seed(4)) * 30
    chosen = {"count": 30} | rule
    points, labels = points_of(likeness, size, PointsConfig(**chosen))
    wanted, said = sought(likeness, size, **chosen)
    torch.testing.assert_close(points, wanted, rtol=0, atol=2e-3)
    assert labels.tolist() == said.tolist()
    assert {THIS, NOT_THIS, NEITHER} == set(labels.tolist())
    assert (points >= 0).all()
    assert (points < torch.tensor(size[::-1])).all()


@pytest.mark.parametrize("corner", [(0, 0), (4, 0), (0, 3), (4, 3)])
def test_a_point_at_the_edge_takes_every_pixel_of_the_image_and_no_other(corner):
    """Of a likeness that is flat, in an image of 4 x 5 pixels."""
    [moved] = _moved(torch.zeros(4, 5), torch.tensor([corner]))
    ys, xs = torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    weight = torch.exp(-((xs - corner[0]) ** 2 + (ys - corner[1]) ** 2).double())
    weight = weight / weight.sum()
    expected = [(weight * xs).sum(), (weight * ys).sum()]
    assert moved.tolist() == pytest.approx([float(value) for value in expected], abs=1e-6)


def test_likeness_that_is_the_same_everywhere_is_no_error():
    points, labels = points_of(torch.ones(16), (20, 30), PointsConfig(count=3))
    assert points.isfinite().all()
    assert set(labels.tolist()) == {NOT_THIS}


@pytest.mark.parametrize("side", [2, 3, 4])
def test_a_coarse_grid_has_places_at_any_size(side):
    for length in range(20, 120):
        points, _ = points_of(torch.arange(side**2), (length, 49), PointsConfig(count=2))
        assert len(points) >= 1


class Said(nn.Module):
    """What it was asked, as a prompt."""

    def forward(self, points, boxes, masks):
        assert (boxes, masks) == (None, None)
        return torch.cat([points[0], points[1][..., None]], -1), None


def test_each_mask_has_the_points_of_its_own_row_in_the_square_of_the_mask_side():
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(2, 20, 8, generator=draw)
    image = torch.zeros(2, 20, dtype=torch.bool)
    image[0, 2:18], image[1, 1:17] = True, True
    seg = torch.randn(3, 8, generator=draw)
    rule = PointsConfig(count=4)
    sizes = [(30, 40), (80, 20)]
    prompts = PointPrompts(rule, Said(), 64)(states, image, [0, 1, 1], seg, sizes)
    for n, row in enumerate([0, 1, 1]):
        points, labels = points_of(states[row, image[row]] @ seg[n], sizes[row], rule)
        scale = 64 / max(sizes[row])
        torch.testing.assert_close(prompts[n, :, :2], points * scale)
        assert prompts[n, :, 2].tolist() == labels.tolist()


def test_where_they_cannot_be_made_is_one_line(compose_run, make_parts, monkeypatch):
    with pytest.raises(ConfigError, match="below must be under above"):
        compose_run("model.points.count=3", "model.points.above=0.1")
    with pytest.raises(ConfigError, match=r"pool=50: an image has \d+ x \d+ tokens"):
        make_parts("model.points.count=3", "model.points.pool=50")
    with pytest.raises(ConfigError, match="clip_view=pad: points are made for crop"):
        make_parts("model.points.count=3", "model.clip_view=pad")
    monkeypatch.setattr(SegmentAnything, "takes_points", False)
    with pytest.raises(ConfigError, match="is given no points here; take SAM"):
        make_parts("model.points.count=3")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("mask=sam2_large", "Sam2 is given no points here; take SAM"),
        ("mask=sam_hq_vit_b", "SamHq is given no points here; take SAM"),
        ("model=qwen3_vl_4b", "another form than one square of tokens; take a LLaVA-1.5"),
        ("model.clip_view=pad", "clip_view=pad: points are made for crop"),
        ("+model.mask._target_=tests.model.test_points.Elsewhere", "Elsewhere is given no points"),
    ],
)
def test_a_side_that_takes_none_is_refused_before_anything_runs(
    compose_run, chosen, message, monkeypatch
):
    monkeypatch.setenv(targets.PACKAGES_VARIABLE, "tests")
    cfg = compose_run("model.points.count=3", chosen)
    with pytest.raises(ConfigError, match=message):
        buildable.check_points(cfg)


def test_sides_that_go_with_points_pass(compose_run):
    buildable.check_points(compose_run("model.points.count=3"))
    buildable.check_points(compose_run("mask=sam2_large"))  # asks for none


class Elsewhere:
    """Somebody's mask side, from before there were points."""


def test_points_move_the_mask_and_are_no_part_of_what_is_trained(make_parts, scenes_folder):
    (with_points, cfg), (without, _) = make_parts("model.points.count=3"), make_parts()
    sampler = ImageSampler(reading.read(cfg.data).train, 0, 2, 2, "permutation")
    batch = without.collator(sampler.step(0))
    names = {n for n, p in with_points.model.named_parameters() if p.requires_grad}
    assert names == {n for n, p in without.model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        masks = [parts.model(batch).mask_logits for parts in (with_points, without)]
    assert not torch.allclose(*masks)
