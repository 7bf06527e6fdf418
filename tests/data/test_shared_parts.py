"""Whether a data config reports what it selects on, for every file in experiments/data."""

import pytest

from keyseg.config import PROJECT
from keyseg.data.shared_parts import shared_parts

SAME = {
    "llm_seg40k": ["llm_seg validation"],
    "r_refcoco": ["r_refcoco val"],
    "ref_zom": ["ref_zom test"],
    "refcocog_google": ["refcocog_google val"],
}
"""Those that lack a split, or are reported on val: their reports say so."""

OPTIONS = sorted(file.stem for file in (PROJECT / "experiments/data").glob("*.yaml"))


@pytest.mark.parametrize("name", OPTIONS)
def test_val_and_test_of_every_data_set(compose_run, name):
    assert shared_parts(compose_run(f"data={name}").data, "val", "test") == SAME.get(name, [])


def test_another_name_or_another_keyword_is_the_same_part():
    reads = {"_target_": "x.read", "root": "here", "dataset": "a"}
    cfg = {
        "sources": {"one": reads, "two": {**reads, "keyword": "head_noun"}},
        "splits": {"val": [{"sources": ["one"]}], "test": [{"sources": ["two"], "split": "val"}]},
    }
    assert shared_parts(cfg, "val", "test") == ["two val"]
    cfg["sources"]["two"]["dataset"] = "b"
    assert shared_parts(cfg, "val", "test") == []


def test_a_config_without_splits_shares_nothing():
    assert shared_parts({}, "val", "test") == []
