import numpy as np
import pytest
import torch
from PIL import Image

from keyseg.data.example import Example
from keyseg.data.mix import ImageGroup
from keyseg.data.prefix import Prefix
from keyseg.data.prompts import Conversation, add_tokens
from keyseg.model.backbones.encoders import Features
from keyseg.model.features import read_image
from keyseg.model.packing import PADDING
from keyseg.tiny.arch import make_processor
from keyseg.train.batch import MISSING, NO_LABEL, Collator

PATCHES = 100
PLACES = Prefix.of([4] * PATCHES)
"""`<image>` of the tiny tokenizer, once for each patch."""


def pixels(images):
    """Features that are the first pixel of each picture."""
    pictures = [read_image(image) for image in images]
    corner = torch.stack([p[:, :1, 0].float() for p in pictures])
    return Features(
        (corner.flatten(0, 1),), (corner[..., None],), [(p.shape[1], p.shape[2]) for p in pictures]
    )


@pytest.fixture
def make_collator(compose_run):
    def make(*overrides):
        cfg = compose_run(*overrides)
        processor = make_processor()
        add_tokens(processor.tokenizer, cfg.model.tokens)
        talk = Conversation(processor.tokenizer, cfg.prompt, cfg.model.tokens, lambda _: PLACES)
        return Collator(talk, pixels)

    return make


@pytest.fixture
def group(tmp_path):
    """An image of a size, with one expression for each (query, keyword)."""

    def make(name, size, *expressions, mask_size=None):
        path = tmp_path / f"{name}.png"
        pixels = np.random.default_rng(len(name)).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        examples = []
        for i, (query, keyword) in enumerate(expressions):
            mask = np.zeros(mask_size or size, np.uint8)
            mask[i] = 1
            mask[-1] = 255
            examples.append(
                Example(
                    f"{name}-{i}", path, name, query, False, keyword, None, {}, lambda m=mask: m
                )
            )
        return ImageGroup(path, name, examples)

    return make


@pytest.fixture
def two(group):
    """Two images of different shapes: two expressions of the first, one of the second."""
    return [
        group("a", (60, 100), ("left ball", "ball"), ("red traffic light", "traffic light")),
        group("b", (128, 128), ("small big red house on the left", None)),
    ]


@pytest.mark.parametrize("order", ["key_first", "seg_first"])
@pytest.mark.parametrize("n_keys", [1, 2])
def test_places_and_labels(make_collator, two, order, n_keys):
    collator = make_collator(f"model.tokens.order={order}", f"model.tokens.n_keys={n_keys}")
    batch = collator(two)
    talk = collator.conversation
    ids, labels = batch.packed.input_ids, batch.labels
    assert batch.image_of.tolist() == [0, 0, 1]
    assert [e.id for e in batch.examples] == ["a-0", "a-1", "b-0"]
    assert batch.key_at.shape == (3, n_keys)
    numbers = [1, 2, 1]
    for n, example in enumerate(batch.examples):
        row, own = int(batch.image_of[n]), batch.packed.segments[batch.image_of[n]] == numbers[n]
        assert ids[row, batch.seg_at[n]] == talk.seg_id
        assert (ids[row, batch.key_at[n]] == talk.key_id).all()
        assert own[batch.seg_at[n]]
        assert own[batch.key_at[n]].all()
        assert len(set(batch.key_at[n].tolist())) == n_keys
        turn = talk.turn(example)
        assert ids[row, own].tolist() == turn.ids
        # the answer is trained, each token at the position before it; nothing else is
        trained = labels[row, own] != NO_LABEL
        first = turn.answer - 1
        assert trained.nonzero().flatten().tolist() == list(range(first, len(turn.ids) - 1))
        assert labels[row, own][trained].tolist() == turn.ids[turn.answer :]
    outside = (batch.packed.segments == 0) | (batch.packed.segments == PADDING)
    assert (labels[outside] == NO_LABEL).all()
    assert outside.any()


def test_features_sizes_masks_and_keywords(make_collator, two):
    collator = make_collator()
    batch = collator(two)
    wanted = pixels([g.image for g in two])
    assert torch.equal(batch.features.language[0], wanted.language[0])
    assert torch.equal(batch.features.mask[0], wanted.mask[0])
    assert batch.sizes == [(60, 100), (128, 128)]
    assert batch.rows == batch.image_of.tolist() == [0, 0, 1]
    assert [tuple(m.shape) for m in batch.masks] == [(60, 100), (60, 100), (128, 128)]
    assert [m.unique().tolist() for m in batch.masks] == [[0, 1, 255]] * 3
    assert batch.masks[1][1].tolist() == [1] * 100
    words = collator.conversation.tokenizer.convert_ids_to_tokens
    assert [words(k) for k in batch.keyword_ids] == [["ball"], ["traffic", "light"], []]


def test_a_mask_of_another_size_is_an_error(make_collator, group):
    wrong = group("wrong", (60, 100), ("ball", "ball"), mask_size=(100, 60))
    with pytest.raises(ValueError, match=r"mask of wrong-0 is \(100, 60\)") as caught:
        make_collator()([wrong])
    assert "(60, 100)" in str(caught.value)
    assert str(wrong.image) in str(caught.value)


def test_with_answers(make_collator, two):
    collator = make_collator("model.tokens.n_keys=2")
    talk = collator.conversation
    batch = collator(two)
    key, seg, end = talk.key_id, talk.seg_id, talk.tokenizer.eos_token_id
    answers = [[seg, key, key], [key, seg], []]
    other = collator.with_answers(batch, answers)
    assert other.examples is batch.examples
    assert other.masks is batch.masks
    assert other.seg_at[2] == MISSING
    assert other.key_at[1:].tolist() == [[MISSING] * 2] * 2
    for n, answer in enumerate(answers):
        row = int(other.image_of[n])
        own = other.packed.segments[row] == [1, 2, 1][n]
        question = talk.question(batch.examples[n])
        assert other.packed.input_ids[row, own].tolist() == question + answer
        assert end not in other.packed.input_ids[row, own].tolist()
        labels = other.labels[row, own]
        assert labels[labels != NO_LABEL].tolist() == answer
    assert other.packed.input_ids[0, other.seg_at[0]] == seg
    assert other.packed.input_ids[0, other.seg_at[1]] == seg
    assert (other.packed.input_ids[0, other.key_at[0]] == key).all()


def test_teacher_forced_answers_are_reproduced(make_collator, two):
    collator = make_collator()
    batch = collator(two)
    turns = [collator.conversation.turn(e) for e in batch.examples]
    again = collator.with_answers(batch, [t.ids[t.answer :] for t in turns])
    assert torch.equal(again.packed.input_ids, batch.packed.input_ids)
    assert torch.equal(again.labels, batch.labels)
    assert torch.equal(again.seg_at, batch.seg_at)
    assert torch.equal(again.key_at, batch.key_at)


def test_templates_depend_on_the_generator_alone(make_collator, two):
    collator = make_collator("prompt=lisa")
    rows = [
        collator(two, np.random.default_rng(seed).spawn(2)).packed.input_ids.tolist()
        for seed in (1, 1, 2, 3)
    ]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2] or rows[0] != rows[3]


def test_moving_keeps_everything(make_collator, two):
    batch = make_collator()(two)
    moved = batch.to("cpu")
    assert torch.equal(moved.packed.segments, batch.packed.segments)
    assert torch.equal(moved.features.language[0], batch.features.language[0])
    assert len(moved.masks) == 3
