"""Several expressions behind one prefix: the same numbers as each of them alone."""

import pytest
import torch

from keyseg.data.prefix import Prefix
from keyseg.model.packing import PADDING, pack

IMAGE = 4  # id of <image> in the tiny tokenizer
PREFIXES = [Prefix.of([1, 5, *[IMAGE] * 6]), Prefix.of([1, 5, 7, *[IMAGE] * 6])]
EXPRESSIONS = [[[10, 11, 12], [13, 14, 15, 16, 17], [11]], [[20, 21]]]


def test_layout_by_hand():
    packed, starts = pack([Prefix.of([7, 8]), Prefix.of([9])], [[[1, 2], [3]], [[4]]], pad_id=0)
    assert packed.input_ids.tolist() == [[7, 8, 1, 2, 3], [9, 4, 0, 0, 0]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 2], [0, 1, 0, 0, 0]]
    assert packed.segments.tolist() == [[0, 0, 1, 1, 2], [0, 1, PADDING, PADDING, PADDING]]
    assert starts == [[2, 4], [1]]


def test_mask_by_hand():
    packed, _ = pack([Prefix.of([7, 8]), Prefix.of([9])], [[[1, 2], [3]], [[4]]], pad_id=0)
    mask = packed.attention_mask(torch.float32)
    assert mask.shape == (2, 1, 5, 5)
    assert (mask[:, 0] == 0).int().tolist() == [
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]],
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]],
    ]
    assert set(mask.unique().tolist()) == {0.0, torch.finfo(torch.float32).min}


@pytest.mark.parametrize(("multiple", "length"), [(1, 17), (8, 24), (17, 17), (64, 64)])
def test_multiple_rounds_the_length_up(multiple, length):
    packed, starts = pack(PREFIXES, EXPRESSIONS, 0, multiple)
    assert packed.input_ids.shape == packed.positions.shape == packed.segments.shape == (2, length)
    assert (packed.segments[:, 17:] == PADDING).all()
    assert starts == [[8, 11, 16], [9]]


def test_every_image_needs_its_expressions():
    with pytest.raises(ValueError, match="zip"):
        pack(PREFIXES, EXPRESSIONS[:1], 0)


def states_and_gradients(vlm, packed, clip, places, weights):
    """Hidden states of one expression, and the gradient of a weighted sum of them."""
    states = vlm(packed, (clip.flatten(0, 1),))[places]
    parameters = [p for p in vlm.parameters() if p.requires_grad]
    gradients = torch.autograd.grad((states * weights).sum(), parameters)
    return states.detach(), gradients


def test_packed_equals_alone(make_vlm, clip):
    """Hidden states and gradients; the second row is padded, the first has three expressions."""
    vlm, _ = make_vlm()
    packed, starts = pack(PREFIXES, EXPRESSIONS, 0)
    for row, parts in enumerate(EXPRESSIONS):
        for number, part in enumerate(parts):
            prefix = PREFIXES[row]
            here = (row, slice(starts[row][number], starts[row][number] + len(part)))
            single, _ = pack([prefix], [[part]], 0)
            there = (0, slice(len(prefix.ids), len(prefix.ids) + len(part)))
            weights = torch.randn(len(part), 192, dtype=torch.float64)
            mine, my_gradients = states_and_gradients(vlm, packed, clip, here, weights)
            theirs, gradients = states_and_gradients(
                vlm, single, clip[row : row + 1], there, weights
            )
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
            for a, b in zip(my_gradients, gradients, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)
            assert any(g.any() for g in gradients)


def test_alone_equals_llavas_own_forward(make_vlm, clip):
    """One expression with causal attention: nothing of the arrangement is left."""
    vlm, _ = make_vlm()
    ids = torch.tensor([PREFIXES[0].ids + EXPRESSIONS[0][1]])
    embedded = vlm.base.get_input_embeddings()(ids)
    embedded[0, 2:8] = vlm.project((clip[0],))[0]
    with torch.no_grad():
        theirs = vlm.base.model.language_model(inputs_embeds=embedded).last_hidden_state
        single, _ = pack(PREFIXES[:1], [[EXPRESSIONS[0][1]]], 0)
        torch.testing.assert_close(vlm(single, (clip[0],)), theirs, rtol=1e-9, atol=1e-9)


def test_padding_does_not_matter(make_vlm, clip):
    vlm, _ = make_vlm()
    short, _ = pack(PREFIXES, EXPRESSIONS, 0)
    long, _ = pack(PREFIXES, EXPRESSIONS, 9, multiple=32)
    with torch.no_grad():
        one, two = (vlm(rows, (clip.flatten(0, 1),)) for rows in (short, long))
    assert two.isfinite().all()
    real = short.segments != PADDING
    torch.testing.assert_close(two[:, :17][real], one[real], rtol=1e-9, atol=1e-9)
