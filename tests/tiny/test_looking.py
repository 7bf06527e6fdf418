"""What the language model is asked in the recipe, and where it is shown to look."""

import numpy as np
import pytest
import torch

from keyseg.data.scenes.queries import STYLES, express
from keyseg.data.scenes.world import SIZE
from keyseg.tiny import llava
from keyseg.tiny.arch import GRID, cell_word, make_llava, make_processor
from keyseg.tiny.corpus import load_or_draw
from keyseg.tiny.finding import found_share
from keyseg.tiny.questions import QuestionAnswer, phrases, questions
from keyseg.tiny.vision import patch_owners


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return load_or_draw(tmp_path_factory.mktemp("corpus"), 12, workers=1)


@pytest.fixture(scope="module")
def talk():
    return llava.Template(make_processor())


@pytest.fixture(scope="module")
def model(talk):
    torch.manual_seed(0)
    made = make_llava(talk.processor)
    made.set_attn_implementation("eager")
    return made.eval()


def seen_of(corpus, width=128):
    return torch.randn(len(corpus), GRID * GRID, width, generator=torch.Generator().manual_seed(1))


def test_a_phrase_fits_what_it_shows_and_nothing_else(corpus):
    for n in range(len(corpus)):
        scene = corpus.scene(n)
        for turn in phrases(scene, np.random.default_rng(n)):
            said = turn.question.removeprefix("find ").removesuffix(" .")
            for number, o in enumerate(scene.objects, 1):
                words = f"{o.size} {o.colour} {o.category}".split()
                assert (set(said.split()) <= set(words)) == (number in turn.shown)
            cells = {cell_word(o.x, o.y, SIZE) for o in scene.objects}
            assert turn.cell in cells


def test_questions_ask_in_every_style_and_answer_with_the_place(corpus):
    turns = [
        t for n in range(len(corpus)) for t in questions(corpus.scene(n), np.random.default_rng(n))
    ]
    assert any("could" in t.question and t.cell for t in turns)
    assert any("closest" in t.question or "above" in t.question for t in turns)
    for turn in turns:
        assert bool(turn.cell) == bool(turn.shown)
        assert not turn.cell or not turn.answer or turn.cell in turn.answer


def test_the_place_is_wanted_where_the_question_ends_and_after_at(talk):
    turn = QuestionAnswer("find red kite .", "sure , a at p37 .", "p37", (2,))
    ids, wanted, looking = talk.turn(turn)
    words = talk.processor.tokenizer.convert_ids_to_tokens(ids)
    assert " ".join(words) == "find red kite . assistant : sure , a at p37 . </s>"
    cell = talk.tokens("p37")[0]
    assert [words[i] for i in looking] == ["kite", ".", "at"]
    assert all(wanted[i] == cell for i in looking)
    assert wanted[5:12] == ids[6:13]  # the answer's own next words
    assert wanted[12] == wanted[0] == wanted[4] == llava.NO_LABEL


def test_a_batch_looks_at_the_patches_of_its_objects(corpus, talk):
    rng = np.random.default_rng(3)
    rows = llava.batch(corpus, seen_of(corpus), talk, phrases, rng, 2)
    again = np.random.default_rng(3)
    picks = again.integers(0, len(corpus), 2)
    for row, index in enumerate(picks):
        owners = patch_owners(corpus, int(index))
        turns = phrases(corpus.scene(int(index)), again)
        wanted = [np.isin(owners, t.shown) for t in turns for _ in range(2)]
        begin = len(talk.prefix.ids)
        ends = (rows.labels[row, begin:] != llava.NO_LABEL).nonzero().flatten() + begin
        assert torch.equal(rows.places[row, ends], torch.from_numpy(np.stack(wanted)))


def test_states_of_an_answer_are_about_the_object_that_it_places(corpus, talk):
    plain, strayed = (
        llava.batch(corpus, seen_of(corpus), talk, questions, np.random.default_rng(3), 2, strays)
        for strays in (0.0, 0.9)
    )
    assert plain.about.isnan().all()
    assert torch.equal(plain.labels, strayed.labels)
    rng = np.random.default_rng(3)
    picks = rng.integers(0, len(corpus), 2)
    spoken = torch.zeros_like(plain.labels, dtype=torch.bool)
    for row, index in enumerate(picks):
        scene, begin = corpus.scene(int(index)), len(talk.prefix.ids)
        for turn in questions(scene, rng):
            ids = talk.turn(turn)[0]
            span = slice(begin + len(talk.tokens(turn.question)), begin + len(ids))
            begin += len(ids)
            if not turn.answer or len(turn.shown) != 1:
                assert strayed.about[row, span].isnan().all()
                continue
            o = scene.objects[turn.shown[0] - 1]
            centre = torch.tensor((o.x, o.y)) / SIZE
            at = strayed.about[row, span]
            assert torch.allclose(at, centre.expand_as(at))
            spoken[row, span.start + 2 : span.stop] = True
    assert torch.equal(~strayed.about[..., 0].isnan(), ~strayed.about[..., 1].isnan())
    replaced = plain.packed.input_ids != strayed.packed.input_ids
    assert 0.2 < float(replaced[spoken].float().mean()) < 0.7
    assert not replaced[~spoken].any()
    assert not set(strayed.packed.input_ids[replaced].tolist()) & talk.cells


def test_a_place_is_read_off_the_states_of_answers(corpus, talk, model):
    rows = llava.batch(
        corpus, seen_of(corpus), talk, questions, np.random.default_rng(0), 2, strays=0.3
    )
    place = torch.nn.Linear(192, 2)
    without, _ = llava.loss(model, rows, talk)
    total, facts = llava.loss(model, rows, talk, place)
    assert total > without
    total.backward()
    assert place.weight.grad.abs().sum() > 0
    assert facts["held"] < 0.5  # nothing is known yet
    model.zero_grad()


def test_words_meet_equal_words(talk):
    """Before any training, a word looks at the token that says the same, 50 places away."""
    torch.manual_seed(0)
    model = make_llava(talk.processor).eval()
    model.set_attn_implementation("eager")
    ids = torch.tensor([[*talk.tokens("red blue green yellow"), *[0] * 50, *talk.tokens("green")]])

    def look():
        with torch.no_grad():
            out = model.model.language_model(ids, output_attentions=True)
        return out.attentions[0][0, 0, -1]

    before = look()
    llava.meet(model)
    after = look()
    assert after[:4].argmax() == 2
    assert after[2] > 2 * before[2]


def test_the_loss_teaches_where_to_look(corpus, talk, model):
    rows = llava.batch(corpus, seen_of(corpus), talk, phrases, np.random.default_rng(0), 2)
    finder = model.model.language_model.layers[llava.FINDER].self_attn
    total, facts = llava.loss(model, rows, talk)
    total.backward()
    assert 0 < facts["looked"] < 1
    assert finder.q_proj.weight.grad[: finder.head_dim].abs().sum() > 0
    assert not finder._forward_hooks
    model.zero_grad()


def test_found_counts_the_object_that_the_word_names(corpus, talk, model, monkeypatch):
    """A model that always says one cell finds the objects that are nearest to that cell."""
    said = talk.tokens("p00")[0]
    monkeypatch.setattr(
        "keyseg.tiny.finding.states",
        lambda _, packed, features: torch.ones(*packed.input_ids.shape, 192),
    )
    head = torch.nn.Linear(192, len(talk.processor.tokenizer), bias=False)
    torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.weight[said] = 1.0
    monkeypatch.setattr(model, "lm_head", head)
    scores = found_share(model, corpus, seen_of(corpus), talk, len(corpus))
    assert 0 <= scores["short"] < 1
    nearest = [
        int(np.argmin([(o.x - 6.4) ** 2 + (o.y - 6.4) ** 2 for o in corpus.scene(i).objects]))
        for i in range(len(corpus))
    ]
    hits = [
        e.target == nearest[i]
        for i in range(len(corpus))
        for e in express(corpus.scene(i), tuple(STYLES), np.random.default_rng([7, i]))
        if e.style == "short"
    ]
    assert scores["short"] == pytest.approx(np.mean(hits), abs=1e-4)
