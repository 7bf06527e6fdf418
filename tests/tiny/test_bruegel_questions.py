"""What the language model of data=bruegel is asked, and what it is found to know."""

import re

import numpy as np
import pytest
import torch

from keyseg.data.scenes.bruegel import COLOURS, HELD_OUT_RELATION, RADIUS, is_called
from keyseg.data.scenes.purposes import PURPOSES
from keyseg.data.scenes.shapes import SHAPES
from keyseg.data.scenes.world import PLACES, SIZE
from keyseg.data.scenes.worlds import BRUEGEL
from keyseg.tiny import llava
from keyseg.tiny.arch import GRID, cell_word, make_llava, make_processor
from keyseg.tiny.bruegel_questions import facts, places
from keyseg.tiny.corpus import load_or_draw
from keyseg.tiny.curriculum import CURRICULA
from keyseg.tiny.finding import known
from keyseg.tiny.vision import place


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return load_or_draw(tmp_path_factory.mktemp("corpus"), 12, BRUEGEL, workers=1)


def test_a_place_is_asked_for_by_what_is_there(corpus):
    attributes = {*COLOURS, *RADIUS}
    for n in range(len(corpus)):
        scene = corpus.scene(n)
        for turn in places(scene, np.random.default_rng(n)):
            said = turn.question.removeprefix("where is the ").removesuffix(" ?").split()
            noun = " ".join(w for w in said if w not in attributes)
            for number, o in enumerate(scene.objects, 1):
                named = not noun or f" {o.category}".endswith(f" {noun}")
                fits = named and set(said) & attributes <= {o.colour, o.size}
                assert fits == (number in turn.shown)
            assert turn.cell in {cell_word(o.x, o.y, SIZE) for o in scene.objects}


def test_questions_ask_what_is_where_and_answer_with_it(corpus):
    asked = [
        (corpus.scene(n), turn)
        for n in range(len(corpus))
        for seed in range(4)
        for turn in facts(corpus.scene(n), np.random.default_rng([n, seed]))
    ]
    for form in ("what is here ?", "what is at p", "where is the", "what could", "is the"):
        assert any(turn.question.startswith(form) for _, turn in asked), form
    for scene, turn in asked:
        assert bool(turn.cell) == bool(turn.shown)
        assert not turn.cell or turn.answer == "" or turn.cell in turn.answer.split()
        for told in re.findall(r"(p\d\d) (big|small) (\w+)", turn.answer):
            there = {(cell_word(o.x, o.y, SIZE), o.size, o.colour) for o in scene.objects}
            assert told in there


def test_relations_are_true(corpus):
    """ "is the red cup above the blue ball ?": "sure ." if it is, else "no ."."""
    answers = []
    for n in range(len(corpus)):
        for seed in range(4):
            scene = corpus.scene(n)
            for turn in facts(scene, np.random.default_rng([n, seed])):
                if not turn.question.startswith("is the "):
                    continue
                first, relation, second = re.fullmatch(
                    r"is the (.*) (to the left of|to the right of|above) the (.*) \?", turn.question
                ).groups()
                one, other = (
                    next(o for o in scene.objects if f"{o.size} {o.colour} {o.category}" == said)
                    for said in (first, second)
                )
                dx, dy = one.x - other.x, one.y - other.y
                side, across = {
                    "to the left of": (-dx, dy),
                    "to the right of": (dx, dy),
                    "above": (-dy, dx),
                }[relation]
                assert turn.answer == ("sure ." if side > 0.6 * abs(across) else "no .")
                answers.append(turn.answer)
    assert {"sure .", "no ."} == set(answers)


def test_what_is_sought_is_there_and_the_only_one(corpus):
    """ "where is the left red cup ?": the answer says the place of the object that it fits."""
    ways = set()
    for n in range(len(corpus)):
        scene = corpus.scene(n)
        for seed in range(8):
            for turn in facts(scene, np.random.default_rng([n, seed])):
                lies = re.search(rf"\b({'|'.join(PLACES)})\b(?! of)", turn.question)
                if len(turn.shown) != 1 or not lies or " the " in turn.question[14:]:
                    continue
                ways.add(lies[1])
                sign, axis = {"left": (-1, "x"), "right": (1, "x"), "top": (-1, "y")}.get(
                    lies[1], (1, "y")
                )
                target = scene.objects[turn.shown[0] - 1]
                rest = turn.question.split(lies[1])[1].removesuffix("is .").strip(" ?.").split()
                alike = [o for o in scene.objects if _fits(o, rest)]
                assert len(alike) > 1
                assert max(alike, key=lambda o: sign * getattr(o, axis)) is target
                assert turn.cell == cell_word(target.x, target.y, SIZE)
    assert ways == set(PLACES)


def _fits(o, said):
    attributes = {*COLOURS, *RADIUS}
    noun = " ".join(w for w in said if w not in attributes)
    return {w for w in said if w in attributes} <= {o.colour, o.size} and is_called(
        o.category, noun
    )


def test_what_is_left_to_the_cells_is_never_asked(corpus):
    """Parts of things, two steps, the closest, "below" and the second purposes."""
    others = {said for ways in PURPOSES.values() for said in ways[1]}
    parts = {piece.part for pieces in SHAPES.values() for piece in pieces if piece.part}
    asked = [
        turn.question
        for n in range(len(corpus))
        for seed in range(8)
        for turn in facts(corpus.scene(n), np.random.default_rng([n, seed]))
    ]
    assert sum(" to the left of " in question for question in asked) > 10
    for question in asked:
        assert HELD_OUT_RELATION not in question.split()
        assert not any(said in question for said in others)
        assert not re.search(rf"\b({'|'.join(map(re.escape, parts))}) of the ", question)
        assert "closest" not in question
        assert "that is" not in question
        assert len(re.findall(r" (?:of|above) the ", question)) <= 1


def test_known_counts_the_object_that_the_word_names(corpus, monkeypatch):
    """A model that always says one place finds the objects that are nearest to it."""
    curriculum = CURRICULA[BRUEGEL]
    talk = llava.Template(make_processor(curriculum.said, curriculum.patch))
    torch.manual_seed(0)
    model = make_llava(talk.processor).eval()
    monkeypatch.setattr(
        "keyseg.tiny.finding.states",
        lambda _, packed, features: torch.ones(*packed.input_ids.shape, 192),
    )
    head = torch.nn.Linear(192, len(talk.processor.tokenizer), bias=False)
    torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.weight[talk.tokens("p00")[0]] = 1.0
    monkeypatch.setattr(model, "lm_head", head)
    seen = torch.zeros(len(corpus), GRID * GRID, 128)
    scores = known(model, corpus, seen, talk, len(corpus))
    assert scores["what"] == 0  # a place is no category
    hits = []
    for i in range(len(corpus)):
        objects = corpus.scene(i).objects
        nearest = int(np.argmin([(o.x - 6.4) ** 2 + (o.y - 6.4) ** 2 for o in objects]))
        turns = places(corpus.scene(i), np.random.default_rng([7, i]))
        hits += [t.shown == (nearest + 1,) for t in turns if len(t.shown) == 1]
    assert scores["where"] == pytest.approx(np.mean(hits), abs=1e-4)
    assert 0 < scores["where"] < 1


def test_positions_begin_alike_where_they_are_near():
    embedding = torch.nn.Embedding(GRID * GRID + 1, 128)
    first = embedding.weight[0].clone()
    place(embedding)
    assert torch.equal(embedding.weight[0], first)  # the class token's
    board = torch.nn.functional.normalize(embedding.weight[1:], dim=1).view(GRID, GRID, -1)
    beside = (board[:, 1:] * board[:, :-1]).sum(-1), (board[1:] * board[:-1]).sum(-1)
    apart = (board[:, 5:] * board[:, :-5]).sum(-1), (board[5:] * board[:-5]).sum(-1)
    assert min(part.min() for part in beside) > max(part.max() for part in apart)
    likeness = board.flatten(0, 1) @ board.flatten(0, 1).T
    assert likeness.fill_diagonal_(0).max() < 0.99
