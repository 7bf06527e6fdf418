import math
from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from keyseg.train.losses import (
    bce_loss,
    dice_loss,
    keyword_logits,
    keyword_loss,
    text_loss,
    weigh,
    weighted_terms,
)

BIG = 100.0


def logit(p):
    return math.log(p / (1 - p))


def mask(*rows):
    return torch.tensor([rows], dtype=torch.uint8)


def test_text_is_the_mean_cross_entropy():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])  # p = (3/4, 1/4), (1/2, 1/2)
    loss = text_loss(logits, torch.tensor([0, 1]))
    assert float(loss) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_bce_by_hand():
    logits = torch.tensor([[[logit(0.8), logit(0.5)], [logit(0.25), logit(0.1)]]])
    targets = mask([1, 1], [0, 0])
    wanted = -(math.log(0.8) + math.log(0.5) + math.log(0.75) + math.log(0.9)) / 4
    assert bce_loss(logits, targets).tolist() == pytest.approx([wanted])


def test_dice_by_hand():
    logits = torch.tensor([[[logit(0.8), logit(0.5)], [logit(0.25), logit(0.1)]]])
    targets = mask([1, 1], [0, 0])
    overlap, total = 0.8 + 0.5, (0.8 + 0.5 + 0.25 + 0.1) + 2
    assert dice_loss(logits, targets).tolist() == pytest.approx(
        [1 - (2 * overlap + 1) / (total + 1)]
    )


@pytest.mark.parametrize("loss", [bce_loss, dice_loss])
def test_ignored_pixels_drop_out(loss):
    small = torch.tensor([[[1.0, -2.0]]])
    wanted = loss(small, mask([1, 0]))
    for hidden in (BIG, -BIG):
        logits = torch.tensor([[[1.0, hidden, -2.0, hidden]]])
        torch.testing.assert_close(loss(logits, mask([1, 255, 0, 255])), wanted)


@pytest.mark.parametrize("loss", [bce_loss, dice_loss])
def test_ignored_pixels_get_no_gradient(loss):
    logits = torch.randn(1, 1, 3, requires_grad=True)
    loss(logits, mask([1, 255, 0])).sum().backward()
    assert (logits.grad[0, 0] != 0).tolist() == [True, False, True]


@pytest.mark.parametrize("loss", [bce_loss, dice_loss])
def test_each_mask_counts_once_whatever_its_size_of_valid_area(loss):
    logits, targets = torch.randn(2, 3, 3), torch.randint(0, 2, (2, 3, 3), dtype=torch.uint8)
    targets[1, 1:] = 255
    each = loss(logits, targets)
    assert each.shape == (2,)
    torch.testing.assert_close(each[:1], loss(logits[:1], targets[:1]))
    torch.testing.assert_close(each[1:], loss(logits[1:], targets[1:]))


@pytest.mark.parametrize("smooth", [1.0, 1e-3])
def test_dice_is_smoothed_by_so_many_pixels(smooth):
    """Half of each of four pixels, one of which is the target: 1 - (2 * 0.5 + s) / (2 + 1 + s)."""
    target = torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8)
    found = dice_loss(torch.zeros(1, 2, 2), target, smooth=smooth)
    assert float(found) == pytest.approx(1 - (1 + smooth) / (3 + smooth))


def test_nothing_predicted_for_an_empty_target_is_no_error():
    nothing, empty = torch.full((1, 2, 2), -BIG), mask([0, 0], [0, 0])
    assert dice_loss(nothing, empty).tolist() == pytest.approx([0.0], abs=1e-6)
    assert bce_loss(nothing, empty).tolist() == pytest.approx([0.0], abs=1e-6)
    assert dice_loss(-nothing, empty).tolist() == pytest.approx([1 - 1 / 5])


def test_a_mask_of_ignored_pixels_only_has_no_loss():
    logits = torch.randn(1, 2, 2, requires_grad=True)
    targets = mask([255, 255], [255, 255])
    total = (bce_loss(logits, targets) + dice_loss(logits, targets)).sum()
    total.backward()
    assert float(total.detach()) == 0
    assert not logits.grad.any()


def test_perfect_masks_have_no_loss():
    targets = mask([1, 0], [0, 1])
    logits = (targets.float() * 2 - 1) * BIG
    assert bce_loss(logits, targets).tolist() == pytest.approx([0.0], abs=1e-6)
    assert dice_loss(logits, targets).tolist() == pytest.approx([0.0], abs=1e-6)


def test_keyword_logits_dot_and_temperature():
    query, table = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert keyword_logits(query, table, "dot", 1.0).tolist() == [[3.0, 8.0]]
    assert keyword_logits(query, table, "dot", 0.5).tolist() == [[6.0, 16.0]]


def test_keyword_logits_cosine_ignores_lengths():
    query, table = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    wanted = torch.tensor([[0.6, 0.8]])
    torch.testing.assert_close(keyword_logits(query, table, "cosine", 1.0), wanted)
    torch.testing.assert_close(keyword_logits(7 * query, 3 * table, "cosine", 0.1), wanted / 0.1)


def test_keyword_logits_keep_leading_shapes_and_are_float32():
    query = torch.randn(2, 3, 4, dtype=torch.bfloat16)
    out = keyword_logits(query, torch.randn(5, 4), "dot", 1.0)
    assert out.shape == (2, 3, 5)
    assert out.dtype == torch.float32


def test_keyword_first_and_all():
    logits = torch.randn(2, 1, 6)
    log_p = logits[:, 0].log_softmax(-1)
    keywords = [[1, 4], [2]]
    first = keyword_loss(logits, keywords, "first")
    torch.testing.assert_close(first, -(log_p[0, 1] + log_p[1, 2]) / 2)
    every = keyword_loss(logits, keywords, "all")
    torch.testing.assert_close(every, -((log_p[0, 1] + log_p[0, 4]) / 2 + log_p[1, 2]) / 2)


def test_keyword_is_averaged_over_keys():
    logits = torch.randn(1, 3, 6)
    wanted = F.cross_entropy(logits[0], torch.full((3,), 5))
    torch.testing.assert_close(keyword_loss(logits, [[5]], "first"), wanted)


def test_expressions_without_a_keyword_do_not_count():
    logits = torch.randn(3, 1, 6)
    some = keyword_loss(logits, [[], [4], []], "first")
    torch.testing.assert_close(some, keyword_loss(logits[1:2], [[4]], "first"))


def test_no_keyword_at_all_is_zero_with_zero_gradient():
    logits = torch.randn(2, 1, 6, requires_grad=True)
    loss = keyword_loss(logits, [[], []], "first")
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()


NAMES = ("text", "bce", "dice", "keyword")


@pytest.fixture
def weights(run_config):
    cfg = run_config.loss
    cfg.text, cfg.bce, cfg.dice, cfg.keyword.weight = 0.5, 2.0, 3.0, 4.0
    return cfg


def set_weight(cfg, name, value):
    if name == "keyword":
        cfg.keyword.weight = value
    else:
        setattr(cfg, name, value)


def numbers(cfg):
    return {term.name: term.weight for term in weighted_terms(cfg)}


def test_weighted_sum(weights):
    values = dict(zip(NAMES, map(torch.tensor, (1.0, 10.0, 100.0, 1000.0)), strict=True))
    losses = weigh(values, numbers(weights))
    assert float(losses.total) == 0.5 + 20 + 300 + 4000
    assert [float(losses.terms[n]) for n in NAMES] == [1, 10, 100, 1000]


@pytest.mark.parametrize("name", NAMES)
def test_weight_0_is_logged_but_not_trained(weights, name):
    cfg = deepcopy(weights)
    set_weight(cfg, name, 0.0)
    values = {n: torch.tensor(2.0, requires_grad=True) for n in NAMES}
    losses = weigh(values, numbers(cfg))
    losses.total.backward()
    assert float(losses.terms[name]) == 2
    assert values[name].grad is None
    assert all(values[n].grad > 0 for n in NAMES if n != name)


@pytest.mark.parametrize("name", NAMES)
def test_weight_0_does_not_spread_nan(weights, name):
    cfg = deepcopy(weights)
    set_weight(cfg, name, 0.0)
    values = {n: torch.tensor(2.0, requires_grad=True) for n in NAMES}
    values[name] = torch.tensor(math.nan, requires_grad=True)
    losses = weigh(values, numbers(cfg))
    losses.total.backward()
    assert bool(losses.total.detach().isfinite())
    assert all(values[n].grad.isfinite() for n in NAMES if n != name)
    assert math.isnan(float(losses.terms[name]))
