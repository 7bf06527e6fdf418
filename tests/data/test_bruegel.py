"""Scenes of data=bruegel: unambiguous in all they ask, wide, hard, and read back as drawn."""

import re

import numpy as np
import pytest

from keyseg.config import ConfigError
from keyseg.data import grefer
from keyseg.data.mix import load_splits, prepare
from keyseg.data.scenes import MARKER_FILE
from keyseg.data.scenes import prepare as draw_scenes
from keyseg.data.scenes.bruegel import (
    CATEGORIES,
    COLOURS,
    GROUP_OF,
    GROUPS,
    HELD_OUT_CATEGORIES,
    HELD_OUT_PAIRS,
    HELD_OUT_RELATION,
    PARTS,
    RADIUS,
)
from keyseg.data.scenes.bruegel_draw import MIN_PART, draw_scene
from keyseg.data.scenes.bruegel_queries import BRUEGEL_STYLES, express, fits_nothing, words
from keyseg.data.scenes.purposes import KNOWN_PURPOSES, PURPOSES
from keyseg.data.scenes.queries import WITHOUT_TARGET
from keyseg.data.scenes.shapes import SHAPES
from keyseg.data.scenes.world import PLACES, RELATIONS, SIZE
from keyseg.data.scenes.worlds import BRUEGEL
from keyseg.data.scenes.write import NO_TARGET_SET, draw
from keyseg.tiny.arch import make_processor
from keyseg.tiny.bruegel_questions import facts, places
from keyseg.tiny.curriculum import CURRICULA


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
        found += [(scene, e) for e in express(scene, [*BRUEGEL_STYLES] * 2, rng)]
    return found


def of_style(said, style):
    pairs = [(scene, e) for scene, e in said if e.style == style]
    assert len(pairs) > 30
    return pairs


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


FILLER = {
    "the",
    "a",
    "that",
    "is",
    "which",
    "you",
    "can",
    "see",
    "in",
    "this",
    "picture",
    "on",
    "at",
}
NOUNS = sorted([*CATEGORIES, *GROUPS, "thing"], key=lambda noun: -len(noun.split()))


def fits(scene, described):
    """Indices of the objects with all the attributes that the words name."""
    text = f" {' '.join(described)} "
    noun = next(noun for noun in NOUNS if f" {noun} " in text)  # the longest one
    rest = set(text.replace(f" {noun} ", " ").split()) - FILLER
    assert rest <= {*COLOURS, *RADIUS}, described
    return [
        i
        for i, o in enumerate(scene.objects)
        if (
            noun == "thing"
            or o.category in GROUPS.get(noun, ())
            or f" {o.category}".endswith(f" {noun}")
        )
        and {w for w in rest if w in COLOURS} <= {o.colour}
        and {w for w in rest if w in RADIUS} <= {o.size}
    ]


def whole(e):
    """The words of an expression without those for a part; the part is one that can be seen."""
    if not e.part:
        return e.query.split()
    assert e.query.startswith(f"{e.part} of the "), e.query
    return e.query.removeprefix(f"{e.part} of the ").split()


def centre(scene, i):
    ys, xs = np.nonzero(scene.objects[i].visible)
    return xs.mean(), ys.mean()


def test_short_queries_fit_one_object(said):
    for scene, e in of_style(said, "short"):
        assert fits(scene, whole(e)) == [e.target], e.query


def test_short_queries_with_a_location_fit_one_object(said):
    """The place is needed, and decides by a clear distance."""
    for scene, e in of_style(said, "short+location"):
        place = [w for w in e.query.split() if w in PLACES]
        assert len(place) == 1, e.query
        described = [w for w in whole(e) if w not in PLACES]
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


STEP = re.compile("|".join([*RELATIONS, "closest to"]))


def passing(scene, candidates, anchor, relation):
    """Those of the candidates that stand in the relation to the anchor."""
    ax, ay = centre(scene, anchor)
    at = {i: centre(scene, i) for i in candidates}
    if relation == "closest to":
        return [min(at, key=lambda i: np.hypot(at[i][0] - ax, at[i][1] - ay))]
    found = []
    for i, (x, y) in at.items():
        towards = {
            "to the left of": ax - x,
            "to the right of": x - ax,
            "above": ay - y,
            "below": y - ay,
        }
        across = abs(y - ay) if relation.startswith("to") else abs(x - ax)
        if towards[relation] > 0.6 * across:
            found.append(i)
    return found


def test_relations_hold_for_one_object(said):
    """The other object of a long query is described unambiguously, by a second step if need be."""
    steps = []
    for scene, e in of_style(said, "long"):
        relations = STEP.findall(e.query)
        named = [text.split() for text in STEP.split(e.query)]
        others = fits(scene, named[-1])
        if len(relations) == 2:
            assert len(others) == 1, e.query
            anchors = [i for i in fits(scene, named[1]) if i not in others]
            assert len(anchors) > 1, f"{e.query}: one step would do"
            others = passing(scene, anchors, others[0], relations[1])
        assert len(others) == 1, e.query
        rivals = [i for i in fits(scene, named[0]) if i not in others]
        assert passing(scene, rivals, others[0], relations[0]) == [e.target], e.query
        steps.append(len(relations))
    assert set(steps) == {1, 2}
    assert 0.15 < np.mean(np.array(steps) == 2) < 0.6


def test_reasoning_never_names_the_class(said):
    for scene, e in of_style(said, "reasoning"):
        category = scene.objects[e.target].category
        assert set(category.split()).isdisjoint(re.findall(r"\w+", e.query)), e.query
    for category, ways in PURPOSES.items():
        for phrase in (phrase for way in ways for phrase in way):
            assert set(category.split()).isdisjoint(phrase.split()), phrase


def test_reasoning_fits_one_object(said):
    """The purpose belongs to one class; a hint tells apart the objects of that class."""
    phrases = {c: [p for way in ways for p in way] for c, ways in PURPOSES.items()}
    every = [p for known in phrases.values() for p in known]
    assert len(set(every)) == len(every)
    for scene, e in of_style(said, "reasoning"):
        fitting = [c for c, known in phrases.items() if any(p in e.query for p in known)]
        assert fitting == [scene.objects[e.target].category], e.query
        query = e.query
        for phrase in phrases[fitting[0]]:
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
    """Several of a class, decoys, occlusion, small things, and all the world in use."""
    shared = [len({o.category for o in s.objects}) < len(s.objects) for s in scenes]
    assert np.mean(shared) > 0.6
    alike = [
        any(
            GROUP_OF[a.category] == GROUP_OF[b.category]
            for a in s.objects
            for b in s.objects
            if a.colour == b.colour and a.category != b.category
        )
        for s in scenes
    ]
    assert np.mean(alike) > 0.5
    assert {len(s.objects) for s in scenes} == {4, 5, 6, 7}
    assert {o.colour for s in scenes for o in s.objects} == set(COLOURS)
    shares = [o.visible.mean() for s in scenes for o in s.objects]
    assert 0.2 < np.mean(np.array(shares) < 0.02) < 0.7  # COCO's and our "small"
    for scene in scenes:
        assert scene.image.shape == (SIZE, SIZE, 3)
        total = sum(o.visible.astype(int) for o in scene.objects)
        assert total.max() == 1  # visible parts do not overlap
        for o in scene.objects:
            assert o.visible.sum() > 30
            for part, mask in o.parts.items():
                assert part in PARTS
                assert mask.sum() >= MIN_PART
                assert not (mask & ~o.visible).any()


def test_the_world_is_wide_with_a_long_tail_and_colliding_names():
    assert len(CATEGORIES) >= 40
    assert set(CATEGORIES) == set(SHAPES) == set(PURPOSES)
    assert sorted(CATEGORIES) == sorted(name for names in GROUPS.values() for name in names)
    assert sum(" " in name for name in CATEGORIES) >= len(CATEGORIES) / 4
    first = [name.split()[0] for name in CATEGORIES]
    assert sum(first.count(word) > 1 for word in first) >= 10
    drawn = [
        o.category for n in range(400) for o in draw_scene(np.random.default_rng([97, n])).objects
    ]
    counts = sorted((drawn.count(name) for name in CATEGORIES), reverse=True)
    assert counts[-1] > 0
    assert sum(counts[:10]) > 4 * sum(counts[-10:])


def test_the_backbones_are_shown_nothing_of_what_is_held_out():
    assert len(HELD_OUT_CATEGORIES) >= 2
    asked, unseen = [], 0
    for n in range(60):
        rng = np.random.default_rng([96, n])
        scene = draw_scene(rng, known_only=True)
        for o in scene.objects:
            assert o.category not in HELD_OUT_CATEGORIES
            assert (o.colour, o.category) not in HELD_OUT_PAIRS
        asked += [f" {t.question} {t.answer} " for t in [*facts(scene, rng), *places(scene, rng)]]
        unseen += any(
            o.category in HELD_OUT_CATEGORIES or (o.colour, o.category) in HELD_OUT_PAIRS
            for o in draw_scene(rng).objects
        )
    text = "".join(asked)
    assert unseen > 20  # an ablation's scenes do hold it
    assert f" {HELD_OUT_RELATION} " not in text
    assert " above " in text
    assert not any(f" {name} " in text for name in HELD_OUT_CATEGORIES)
    known = {said for name, ways in KNOWN_PURPOSES.items() for said in ways}
    heard = {said for ways in PURPOSES.values() for way in ways for said in way if said in text}
    assert heard
    assert heard <= known
    assert len(known) == sum(len(way) for ways in PURPOSES.values() for way in ways) / 2
    # another form than a cell's conversation
    assert text.count(" find ") == text.count(" find where the ") > 0
    places_said = re.findall(r" sure , (?:here : |(?:it is )?at )?p\d\d \. ", text)
    assert text.count(" sure , ") == len(places_said) > 0
    assert not any(f" {part} of " in text for part in PARTS)


def test_an_expression_may_fit_nothing(scenes):
    """Its colour is there, and its category, but not together."""
    for n, scene in enumerate(scenes):
        e = fits_nothing(scene, np.random.default_rng(n))
        assert e is not None
        assert fits(scene, e.query.split()) == [], e.query
        colour, _, category = e.query.partition(" ")
        assert colour in {o.colour for o in scene.objects}
        assert category in {o.category for o in scene.objects}


def test_expressions_without_a_target_are_an_option(tmp_path):
    """They stand in a set of their own, in gRefCOCO's form, and change no other file."""
    counts = {"train": 2, "val": 1, "test": 1}
    draw_scenes(tmp_path / "some", 0, counts, {}, BRUEGEL, no_target=0.4)
    draw_scenes(tmp_path / "none", 0, counts, {}, BRUEGEL)
    some, none = contents(tmp_path / "some"), contents(tmp_path / "none")
    more = sorted(some.keys() - none.keys())
    assert more == [
        f"refer_seg/{NO_TARGET_SET}/{f}" for f in ("grefs(keyseg).json", "instances.json")
    ]
    assert all(some[name] == none[name] for name in none if name != MARKER_FILE)
    examples = grefer.read(tmp_path / "some/refer_seg", "train", NO_TARGET_SET, "keyseg")
    assert examples
    for e in examples:
        assert e.slices["targets"] == "none"
        assert e.keyword is None
        assert not e.mask().any()
    with pytest.raises(ConfigError, match=r"no_target=1\.5: must be a share"):
        draw_scenes(tmp_path / "wrong", 0, counts, {}, BRUEGEL, no_target=1.5)


def test_every_word_is_known_to_the_tokenizer(said):
    tokenizer = make_processor(CURRICULA[BRUEGEL].said).tokenizer
    texts = {e.query for _, e in said} | {" ".join(words())} | set(CATEGORIES)
    for n in range(40):
        scene = draw_scene(np.random.default_rng([95, n]), known_only=True)
        for turn in facts(scene, np.random.default_rng(n)):
            texts |= {turn.question, turn.answer, turn.cell}
    for text in texts:
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"], text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"world": "hell"}, "data.prepare.world=hell: must be one of plain, bruegel"),
        ({"no_target": 0.1}, "no_target=0.1: every expression of world=plain has a target; "
         "set data.prepare.world to bruegel"),
    ],
)  # fmt: skip
def test_what_a_world_lacks_is_said(tmp_path, more, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        draw_scenes(tmp_path / "wrong", 0, {}, {}, **more)


def test_objects_and_parts_are_read_as_drawn(compose_run, tmp_path):
    """By data=bruegel_no_target: objects, parts, and expressions without a target."""
    cfg = compose_run(
        "data=bruegel_no_target",
        f"paths.data={tmp_path}",
        "data.prepare.refer={train: 4, val: 1, test: 1}",
        "data.prepare.reason={train: 2, val: 1, test: 1}",
        "data.prepare.no_target=0.4",
    )
    prepare(cfg.data)
    train = [e for source in load_splits(cfg.data)[0] for e in source.examples]
    kinds = []
    for kind, count in (("refer", 4), ("reason", 2)):
        for index in range(count):
            _, objects, asked = draw((kind, "train", 0, index), BRUEGEL, 0.4)
            number = f"{index + 1:012d}" if kind == "refer" else f"train_{index:05d}"
            here = [e for e in train if e.image.stem.endswith(number)]
            assert len(here) == len(asked)
            for e in asked:
                alike = {"query": e["query"], "style": e["style"]}
                found = [x for x in here if {"query": x.query, "style": x.slices["style"]} == alike]
                assert len(found) == sum(alike.items() <= other.items() for other in asked)
                if e["target"] == WITHOUT_TARGET:
                    assert not found[0].mask().any()
                    assert found[0].keyword is None
                    kinds.append("none")
                    continue
                target = objects[e["target"]]
                assert found[0].keyword == target["category"]
                ys, xs = np.nonzero(found[0].mask() == 1)
                assert abs(len(xs) / target["area"] - 1) < 0.15
                x, y, width, height = target["box"]
                # Slivers beside what stands in front of it have no polygon: up to 4 pixels here.
                assert np.abs([xs.min() - x, ys.min() - y]).max() <= 4
                assert np.abs([np.ptp(xs) + 1 - width, np.ptp(ys) + 1 - height]).max() <= 4
                kinds.append("part" if target["category"] in PARTS else kind)
    assert {"none", "part", "refer", "reason"} == set(kinds)
