"""The embedded data: reproducible, disjoint, unambiguous, and read back as it was drawn."""

import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from keyseg.config import ConfigError
from keyseg.data import reason_seg, refer
from keyseg.data.scenes import MARKER_FILE, prepare
from keyseg.data.scenes.draw import draw_scene
from keyseg.data.scenes.queries import STYLES, express, words
from keyseg.data.scenes.world import (
    AFFORDANCES,
    CATEGORIES,
    COLOURS,
    PLACES,
    RADIUS,
    RELATIONS,
    SHAPES,
    SIZE,
)
from keyseg.data.scenes.write import REFER_SETS, REFER_STYLES, SPLITS, draw
from keyseg.tiny.arch import make_processor
from keyseg.tiny.corpus import load_or_draw
from keyseg.tiny.questions import questions

COUNTS = {"train": 6, "val": 3, "test": 3}  # as `scenes_folder` has them


@pytest.fixture(scope="module")
def scenes():
    """120 scenes, none of them in a data set."""
    return [draw_scene(np.random.default_rng([99, n])) for n in range(120)]


@pytest.fixture(scope="module")
def said(scenes):
    """(scene, expression) for every style and every scene that has one."""
    found = []
    for n, scene in enumerate(scenes):
        rng = np.random.default_rng([98, n])
        found += [(scene, e) for e in express(scene, [*STYLES] * 2, rng)]
    return found


def of_style(said, style):
    pairs = [(scene, e) for scene, e in said if e.style == style]
    assert len(pairs) > 30
    return pairs


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_seed_same_bytes_and_a_killed_attempt_leaves_nothing(scenes_folder, tmp_path):
    left_over = tmp_path / "again.tmp" / "refer_seg"
    left_over.mkdir(parents=True)
    (left_over / "half a file").write_text("{")
    prepare(tmp_path / "again", seed=0, refer=COUNTS, reason=COUNTS)
    first, second = contents(scenes_folder), contents(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert sum(name.endswith(".jpg") for name in first) == 2 * sum(COUNTS.values())
    assert not (tmp_path / "again.tmp").exists()


def test_another_seed_differs(scenes_folder, tmp_path):
    prepare(tmp_path / "other", seed=1, refer=COUNTS, reason={})
    pictures = {hashlib.sha256(p.read_bytes()).digest() for p in scenes_folder.rglob("*.jpg")}
    others = [hashlib.sha256(p.read_bytes()).digest() for p in tmp_path.rglob("*.jpg")]
    assert len(pictures) == 24
    assert len(others) == 12
    assert pictures.isdisjoint(others)


def test_prepare_leaves_a_complete_folder_alone(scenes_folder):
    before = {p: p.stat().st_mtime_ns for p in scenes_folder.rglob("*")}
    prepare(scenes_folder, seed=0, refer=COUNTS, reason=COUNTS)
    assert {p: p.stat().st_mtime_ns for p in scenes_folder.rglob("*")} == before


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"refer": COUNTS | {"val": 4}}, {"reason": {"train": 6, "val": 3}}]
)
def test_a_folder_of_other_arguments_is_refused(scenes_folder, change):
    arguments = {"seed": 0, "refer": COUNTS, "reason": COUNTS} | change
    with pytest.raises(ConfigError, match=r"holds other scenes .*set data\.root") as caught:
        prepare(scenes_folder, **arguments)
    assert str(scenes_folder) in str(caught.value)
    assert json.loads((scenes_folder / MARKER_FILE).read_text())["seed"] == 0


def test_splits_and_corpus_share_no_picture(tmp_path):
    """By the pixels, over the first pictures of each stream."""
    seen = {}
    for kind in ("refer", "reason"):
        for split in SPLITS:
            for seed in (0, 1):
                images = [draw((kind, split, seed, n))[0] for n in range(5)]
                seen[kind, split, seed] = images
    for held_out in (False, True):
        seen["corpus", held_out] = load_or_draw(tmp_path, 10, held_out=held_out).images
    hashes = [hashlib.sha256(np.ascontiguousarray(i)).digest() for s in seen.values() for i in s]
    assert len(hashes) == 12 * 5 + 20
    assert len(set(hashes)) == len(hashes)


def fits(scene, described):
    """Indices of the objects with all the attributes that the words name."""
    colours = {w for w in described if w in COLOURS}
    sizes = {w for w in described if w in RADIUS}
    names = {c for c in CATEGORIES if f" {c} " in f" {' '.join(described)} "}
    assert len(names) == 1, described
    return [
        i
        for i, o in enumerate(scene.objects)
        if o.category in names and colours <= {o.colour} and sizes <= {o.size}
    ]


def centre(scene, i):
    ys, xs = np.nonzero(scene.objects[i].visible)
    return xs.mean(), ys.mean()


def test_short_queries_fit_one_object(said):
    for scene, e in of_style(said, "short"):
        assert fits(scene, e.query.split()) == [e.target], e.query


def test_short_queries_with_a_location_fit_one_object(said):
    """The place is needed, and decides by a clear distance."""
    for scene, e in of_style(said, "short+location"):
        place = [w for w in e.query.split() if w in PLACES]
        assert len(place) == 1, e.query
        described = [w for w in e.query.split() if w not in PLACES]
        candidates = fits(scene, described)
        assert len(candidates) > 1, e.query
        axis = 0 if place[0] in ("left", "right") else 1
        sign = 1 if place[0] in ("left", "top") else -1
        along = {i: sign * centre(scene, i)[axis] for i in candidates}
        best, second = sorted(along, key=along.get)[:2]
        assert best == e.target, e.query
        assert along[second] - along[best] > 5, e.query
        half = sign * SIZE / 2
        assert along[best] < half, f"{e.query}: on the other side of the picture"


def test_relations_hold_for_one_object(said):
    """In long queries the other object is described unambiguously, and the relation is true."""
    for scene, e in of_style(said, "long"):
        relation = [r for r in RELATIONS if f" {r} " in e.query]
        closest = "closest to" in e.query
        assert len(relation) + closest == 1, e.query
        thing, _, anchor = e.query.partition("closest to" if closest else relation[0])
        anchors = fits(scene, anchor.replace("in this picture", "").split())
        assert len(anchors) == 1, e.query
        ax, ay = centre(scene, anchors[0])
        passing = []
        rivals = [i for i in fits(scene, thing.split()) if i != anchors[0]]
        for i in rivals:
            x, y = centre(scene, i)
            towards = {
                "to the left of": ax - x,
                "to the right of": x - ax,
                "above": ay - y,
                "below": y - ay,
            }
            across = abs(y - ay) if relation and relation[0].startswith("to") else abs(x - ax)
            if closest:
                passing.append((np.hypot(x - ax, y - ay), i))
            elif towards[relation[0]] > 0.6 * across:
                passing.append((0, i))
        if closest:
            passing = [min(passing)]
        assert [i for _, i in passing] == [e.target], e.query


def test_reasoning_never_names_the_class(said):
    for scene, e in of_style(said, "reasoning"):
        category = scene.objects[e.target].category
        assert set(category.split()).isdisjoint(re.findall(r"\w+", e.query)), e.query
    for category, phrases in AFFORDANCES.items():
        assert set(category.split()).isdisjoint(" ".join(phrases).split())


def test_reasoning_fits_one_object(said):
    """The purpose belongs to one class; a hint tells apart the objects of that class."""
    phrases = [p for known in AFFORDANCES.values() for p in known]
    assert len(set(phrases)) == len(phrases)
    for scene, e in of_style(said, "reasoning"):
        fitting = [c for c, known in AFFORDANCES.items() if any(p in e.query for p in known)]
        assert fitting == [scene.objects[e.target].category], e.query
        query = e.query
        for phrase in AFFORDANCES[fitting[0]]:
            query = query.replace(phrase, "")
        hints = query.split()
        left = [
            i
            for i, o in enumerate(scene.objects)
            if o.category == fitting[0]
            and {w for w in hints if w in COLOURS} <= {o.colour}
            and {w for w in hints if w in RADIUS} <= {o.size}
        ]
        place = [w for w in hints if w in PLACES]
        if place:
            axis = 0 if place[0] in ("left", "right") else 1
            sign = 1 if place[0] in ("left", "top") else -1
            left = [min(left, key=lambda i: sign * centre(scene, i)[axis])]
        assert left == [e.target], e.query


def test_scenes_are_hard(scenes):
    """Several of a class, occlusion, and all the world in use."""
    shared = [len({o.category for o in s.objects}) < len(s.objects) for s in scenes]
    assert np.mean(shared) > 0.6
    assert {len(s.objects) for s in scenes} == {3, 4, 5, 6}
    assert {o.category for s in scenes for o in s.objects} == set(CATEGORIES) == set(SHAPES)
    assert {o.colour for s in scenes for o in s.objects} == set(COLOURS)
    for scene in scenes:
        assert scene.image.shape == (SIZE, SIZE, 3)
        total = sum(o.visible.astype(int) for o in scene.objects)
        assert total.max() == 1  # visible parts do not overlap
        assert all(o.visible.sum() > 50 for o in scene.objects)


def test_every_word_is_known_to_the_tokenizer(said):
    tokenizer = make_processor().tokenizer
    texts = {e.query for _, e in said} | {" ".join(words())} | set(CATEGORIES)
    for n, (scene, _) in enumerate(said[:100]):
        for turn in questions(scene, np.random.default_rng(n)):
            texts |= {turn.question, turn.answer, turn.cell}
    for text in texts:
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"], text


def drawn_again(kind, split, index):
    """The scene and its expressions, from the seeds that `draw` uses."""
    stream = SPLITS.index(split) + (3 if kind == "reason" else 0)
    rng = np.random.default_rng([stream, 0, index])
    styles = REFER_STYLES if kind == "refer" else ["reasoning"]
    while True:
        scene = draw_scene(rng)
        if found := express(scene, styles, rng):
            return scene, found


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("split", SPLITS)
def test_refer_sets_are_read_as_drawn(scenes_folder, split):
    wanted, found = {}, {}
    for index in range(COUNTS[split]):
        scene, expressions = drawn_again("refer", split, index)
        for e in expressions:
            wanted[index, e.style, e.query] = scene.objects[e.target]
        near = None
        for name, style in REFER_SETS.items():
            examples = refer.read(scenes_folder / "refer_seg", name, "keyseg", split)
            images = sorted({e.image for e in examples})
            for e in examples:
                with Image.open(e.image) as picture:
                    pixels = np.asarray(picture, dtype=int)
                if np.abs(pixels - scene.image).mean() < 4:  # JPEG
                    near = e.image
                    found[index, style, e.query] = e
            assert len(images) <= COUNTS[split]
        assert near is not None
    assert found.keys() == wanted.keys()
    for key, e in found.items():
        assert e.keyword == wanted[key].category
        assert not e.is_sentence
        assert overlap(e.mask() == 1, wanted[key].visible) > 0.98
        assert set(np.unique(e.mask())) == {0, 1}


@pytest.mark.parametrize("split", SPLITS)
def test_reason_set_is_read_as_drawn(scenes_folder, split):
    examples = reason_seg.read(scenes_folder / "reason_seg", split)
    assert len({e.image for e in examples}) == COUNTS[split]
    for index in range(COUNTS[split]):
        scene, (first, *_) = drawn_again("reason", split, index)
        target = scene.objects[first.target]
        mine = [e for e in examples if e.image.stem == f"scene_{split}_{index:05d}"]
        assert mine[0].query == first.query
        assert len({e.query for e in mine}) == len(mine)
        for e in mine:
            assert e.is_sentence
            assert e.keyword == target.category
            assert e.text == f"the {target.colour} {target.category}"
            assert overlap(e.mask() == 1, target.visible) > 0.98


def test_every_style_and_colliding_keywords_are_there(scenes_folder):
    folder = scenes_folder / "refer_seg"
    found = {n: refer.read(folder, n, "keyseg", "train") for n in REFER_SETS}
    assert all(found.values())
    first_words = [c.split()[0] for c in CATEGORIES]
    assert len(set(first_words)) < len(first_words)
