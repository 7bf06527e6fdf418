import gc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from keyseg.config import PROJECT
from keyseg.data import mix, plain_pickle, refer
from keyseg.data.example import Example
from keyseg.data.files import DataError
from keyseg.data.masks import CocoMask
from keyseg.data.mix import ImageSampler, Source, fingerprint, groups, load, load_splits, prepare

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]


def example(name, image, query="the dog", keyword="dog", segmentation=None):
    mask = CocoMask(segmentation or SQUARE, 8, 8)
    path = Path("/images") / f"{image}.jpg"
    return Example(name, path, image, query, False, keyword, None, {"split": "train"}, mask)


def source(prefix, images, expressions=3, weight=1.0):
    return Source(
        [
            example(f"{prefix}-{i}-{j}", f"{prefix}{i}")
            for i in range(images)
            for j in range(expressions)
        ],
        weight,
    )


def drawn(sampler, steps):
    return [
        [(g.image_id, [e.id for e in g.examples]) for g in sampler.step(n)] for n in range(steps)
    ]


# ---------------------------------------------------------------- groups


def test_expressions_of_an_image_travel_together():
    """In the order in which images first appear, across sources and with gaps."""
    examples = [example("a0", "a"), example("b0", "b"), example("a1", "a"), example("c0", "c")]
    found = groups(examples)
    assert [(g.image_id, [e.id for e in g.examples]) for g in found] == [
        ("a", ["a0", "a1"]),
        ("b", ["b0"]),
        ("c", ["c0"]),
    ]
    assert found[0].image == Path("/images/a.jpg")
    assert groups([]) == []


# ---------------------------------------------------------------- order of training


def test_random_access_is_the_sequential_order():
    sources = [source("a", 7, weight=2), source("b", 5)]
    sequence = drawn(ImageSampler(sources, 3, 4, 2), 600)
    fresh = ImageSampler(sources, 3, 4, 2)
    for n in (599, 0, 17, 300, 18, 299):  # more than two blocks of draws, backwards too
        found = [(g.image_id, [e.id for e in g.examples]) for g in fresh.step(n)]
        assert found == sequence[n]


def test_workers_do_not_matter():
    """Steps dealt out to samplers of their own, or to threads that share one."""
    sources = [source("a", 7, weight=2), source("b", 5)]
    sequence = drawn(ImageSampler(sources, 0, 3, 2), 60)
    workers = [ImageSampler(sources, 0, 3, 2) for _ in range(4)]
    dealt = [workers[n % 4].step(n) for n in range(60)]
    shared = ImageSampler(sources, 0, 3, 2)
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(shared.step, range(60)))
    for steps in (dealt, threaded):
        found = [[(g.image_id, [e.id for e in g.examples]) for g in step] for step in steps]
        assert found == sequence


def test_seed_decides():
    sources = [source("a", 20)]
    one, same, other = (drawn(ImageSampler(sources, s, 4, 2), 10) for s in (0, 0, 1))
    assert one == same
    assert one != other


@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(1, 9),
    other=st.integers(1, 9),
    weight=st.floats(0.1, 10),
    size=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_no_image_twice_in_an_epoch(images, other, weight, size, seed):
    sampler = ImageSampler([source("a", images), source("b", other, weight=weight)], seed, size, 1)
    order = [g.image_id for n in range(60) for g in sampler.step(n)]
    for prefix, n in (("a", images), ("b", other)):
        own = [i for i in order if i.startswith(prefix)]
        for start in range(0, len(own) - n + 1, n):
            assert len(set(own[start : start + n])) == n
    assert len(order) == 60 * size


def test_epochs_go_on_over_long_runs():
    """Source choices come in blocks of 1,024: nothing repeats or starts anew at their borders."""
    sampler = ImageSampler([source("a", 40, weight=2), source("b", 7)], 0, 16, 1)
    order = [g.image_id for n in range(256) for g in sampler.step(n)]
    for prefix, n in (("a", 40), ("b", 7)):
        own = [i for i in order if i.startswith(prefix)]
        epochs = [own[start : start + n] for start in range(0, len(own) - n + 1, n)]
        assert all(len(set(epoch)) == n for epoch in epochs)
    blocks = ["".join(i[0] for i in order[b : b + 1024]) for b in range(0, 4096, 1024)]
    assert len(set(blocks)) == 4


def test_epochs_differ():
    sampler = ImageSampler([source("a", 30)], 0, 30, 1)
    first, second = ([g.image_id for g in sampler.step(n)] for n in (0, 1))
    assert sorted(first) == sorted(second)
    assert first != second


def test_weights_are_respected_in_the_long_run():
    """9 : 3 whatever the sources' sizes; 4,000 draws, so 4 standard deviations are 0.027."""
    sampler = ImageSampler([source("a", 5, weight=9), source("b", 50, weight=3)], 0, 10, 1)
    counts = Counter(g.image_id[0] for n in range(400) for g in sampler.step(n))
    assert counts["a"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_each_image_may_be_drawn_out_of_all():
    """As released: the same at any step asked for first; 4,000 draws of 5, within 4 deviations."""
    sources = [source("a", 5, weight=1)]
    sampler = ImageSampler(sources, 0, 10, 1, "uniform")
    steps = [[g.image_id for g in sampler.step(n)] for n in range(400)]
    counts = Counter(image for step in steps for image in step)
    assert all(abs(count - 800) < 4 * 25.3 for count in counts.values())
    assert any(len(set(step[:5])) < 5 for step in steps)
    late = ImageSampler(sources, 0, 10, 1, "uniform").step(399)
    assert [g.image_id for g in late] == steps[399]


def test_a_data_set_is_drawn_uniformly_then_an_image_as_released(compose_run):
    data = compose_run("data=released", "data.draw=uniform").data
    shares = {entry["sources"][0]: entry["weight"] for entry in data["splits"]["train"]}
    assert shares == {"refcoco": 3, "refcoco_plus": 3, "refcocog": 3, "reason": 3}
    assert (data["draw"], data["keyword"]) == ("uniform", "expression")
    assert [e["texts"] for e in data["splits"]["test"]] == ["first"]


def test_expressions_are_drawn_without_replacement_and_evenly():
    sampler = ImageSampler([source("a", 1, expressions=5)], 0, 1, 2)
    counts = Counter()
    for n in range(1000):
        (group,) = sampler.step(n)
        ids = [e.id for e in group.examples]
        assert len(set(ids)) == 2
        counts.update(ids)
    assert len(counts) == 5
    assert all(abs(c - 400) < 80 for c in counts.values())


def test_an_image_with_few_expressions_gives_them_all():
    (group,) = ImageSampler([source("a", 1, expressions=2)], 0, 1, 4).step(0)
    assert [e.id for e in group.examples] == ["a-0-0", "a-0-1"]


def test_bad_sampler_arguments():
    with pytest.raises(DataError, match="without examples"):
        ImageSampler([source("a", 1), Source([], 1.0)], 0, 1, 1)
    with pytest.raises(DataError, match="nothing to sample"):
        ImageSampler([], 0, 1, 1)
    with pytest.raises(ValueError, match="step -1"):
        ImageSampler([source("a", 1)], 0, 1, 1).step(-1)


# ---------------------------------------------------------------- fingerprint


def test_fingerprint_is_stable_and_knows_no_paths():
    one, same = fingerprint([source("a", 3)]), fingerprint([source("a", 3)])
    assert one == same
    assert len(one) == 16
    elsewhere = Source([example("a", "x")], 1.0)
    moved = Example(**{**vars(elsewhere.examples[0]), "image": Path("/else/where.jpg")})
    assert fingerprint([elsewhere]) == fingerprint([Source([moved], 1.0)])


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"query": "the cat"},
        {"keyword": None},
        {"keyword": "cat"},
        {"text": "the cat"},
        {"is_sentence": True},
        {"slices": {"split": "val"}},
        {"load_mask": CocoMask([[1, 1, 4, 1, 4, 5]], 8, 8)},
        {"load_mask": lambda: np.zeros((8, 8), np.uint8)},
    ],
    ids=lambda change: " ".join(change) if len(str(change)) < 60 else None,
)
def test_fingerprint_sees_every_change(change):
    old = example("a", "x")
    new = Example(**{**vars(old), **change})
    assert fingerprint([Source([old], 1.0)]) != fingerprint([Source([new], 1.0)])


def test_fingerprint_sees_weights_and_order():
    a, b = source("a", 2), source("b", 2)
    assert len({fingerprint(s) for s in ([a, b], [b, a], [a], [Source(a.examples, 2.0), b])}) == 4


# ---------------------------------------------------------------- load


@pytest.fixture
def config(refer_folder, reason_folder):
    refer_folder.write("refcoco")
    refer_folder.write("refcoco+")
    for split in ("train", "val"):
        reason_folder.add("a", ["what barks"], [], split=split)
    reason_folder.write_keywords()
    reader = {"_target_": "keyseg.data.refer.read", "root": str(refer_folder.root)}
    reader["split_by"] = "unc"
    return {
        "name": "test",
        "sources": {
            "one": {**reader, "dataset": "refcoco", "slices": {"style": "short"}},
            "two": {**reader, "dataset": "refcoco+"},
            "reason": {
                "_target_": "keyseg.data.reason_seg.read",
                "root": str(reason_folder.root),
            },
        },
        "splits": {
            "train": [
                {"sources": ["one", "two"], "split": "train", "weight": 2},
                {"sources": ["reason"]},
            ],
            "val": [{"sources": ["one"], "split": "testA"}],
        },
    }


@pytest.mark.parametrize("wrap", [dict, OmegaConf.create])
def test_load(config, wrap):
    first, second = load(wrap(config), "train")
    assert (first.weight, second.weight) == (2.0, 1.0)
    assert len(first.examples) == 8
    assert [e.id for e in second.examples] == ["ReasonSeg/train/a-0"]
    assert first.examples[0].slices["style"] == "short"
    assert [len(g.examples) for g in groups(first.examples)] == [4, 4]
    (val,) = load(wrap(config), "val")
    assert {e.slices["split"] for e in val.examples} == {"testA"}


def test_splits_that_are_read_together_are_the_same_and_share_their_files(config, monkeypatch):
    alone = {split: load(config, split) for split in ("train", "val")}
    opened = []

    def counting(path, of):
        opened.append(path.name)
        return of(path)

    for module, name in ((refer, "read_json"), (plain_pickle, "load")):
        read = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, of=read: counting(path, of))
    val, train = load_splits(config, ["val", "train"])
    # "one" and "two" have instances of their own in folders of their own, with the same content
    assert Counter(opened) == {"instances.json": 1, "refs(unc).p": 1}
    assert fingerprint(val) == fingerprint(alone["val"])
    assert fingerprint(train) == fingerprint(alone["train"])
    assert gc.isenabled()


def test_a_relative_root_starts_at_the_project(monkeypatch, tmp_path, config):
    seen = []

    def read(root, split):
        seen.append(root)
        return []

    read.__module__ = "keyseg.data.refer"
    monkeypatch.setattr("keyseg.data.refer.read", read)
    config["sources"]["one"] = {"_target_": "keyseg.data.refer.read", "root": "cache/refer seg"}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data\.splits\.val\[0\] has no examples"):
        load(config, "val")
    assert seen == [PROJECT / "cache/refer seg"]


def test_prepare(monkeypatch):
    calls = []

    def make(root, seed):
        calls.append((root, seed))

    make.__module__ = "keyseg.data.mix"
    monkeypatch.setattr(mix, "made", make, raising=False)
    prepare({"prepare": {"_target_": "keyseg.data.mix.made", "root": "cache/x", "seed": 3}})
    prepare({"name": "public"})
    assert calls == [(PROJECT / "cache/x", 3)]


def broken(config, change, match, split="train"):
    change(config)
    with pytest.raises(DataError, match=match):
        load(config, split)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["splits"].pop("train"), "data=test has no split 'train'; it has: val"),
        (lambda c: c.pop("splits"), "no split 'train'; it has: none"),
        (lambda c: c["splits"].update(train=[]), r"data\.splits\.train is empty"),
        (lambda c: c["splits"]["train"][0].update(weight=0), r"train\[0\]\.weight=0.0: must"),
        (lambda c: c["splits"]["train"][0].update(weight=float("inf")), "weight=inf"),
        (lambda c: c["splits"]["train"][0].update(sources=[]), "no examples: name its sources"),
        (lambda c: c["splits"]["train"][0].update(sources=["tow"]), "source 'tow'; meant two"),
        (lambda c: c["splits"]["train"][0].update(sources=["x9"]), "meant one, two, reason"),
        (lambda c: c["splits"]["train"][1].update(sources=["two"]), r"refcoco\+/.* comes twice"),
        (lambda c: c["splits"]["train"][0].update(split="testC"), "no split 'testC'; it has: tr"),
        (
            lambda c: c["sources"]["one"].update(_target_="read"),
            r"sources\.one\._target_=read",
        ),
        (lambda c: c["sources"]["one"].update(_target_="keyseg.nothing.read"), "cannot be found"),
        (lambda c: c["sources"]["one"].update(_target_="keyseg.data.refer.reed"), "cannot be fou"),
        (lambda c: c["sources"]["one"].update(datasett="x"), "'datasett'; .*read takes"),
        (lambda c: c["sources"]["one"].pop("dataset"), r"sources\.one: missing .*'dataset'"),
    ],
)
def test_errors_of_the_config(config, change, match):
    broken(config, change, match)
