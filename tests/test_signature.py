"""Cells that were made before today's keys and modules are found again.

`signatures.json` holds the option files as they were when the first cells were made, resolved, with
the signatures that those cells lie under.
"""

import json
from copy import deepcopy
from fnmatch import fnmatch
from pathlib import Path

import pytest

from keyseg import config
from keyseg.config import ADDED, PROJECT, signature, signed, validate

FIRST = json.loads((Path(__file__).parent / "signatures.json").read_text())


def resolved(option):
    """The config of a cell of then; "" is the default one."""
    return deepcopy(FIRST["config"]) | deepcopy(
        FIRST["options"].get(option, {"config": {}})["config"]
    )


@pytest.fixture
def first():
    return resolved("")


def recorded(option):
    return FIRST["options"][option]["signature"] if option else FIRST["signature"]


@pytest.mark.parametrize("option", ["", *FIRST["options"]])
def test_the_first_cells_are_found_again(option):
    """But those whose values do something else today: rows without a word started from one mean."""
    config = resolved(option)
    tokens = config["model"]["tokens"]
    redefined = tokens["key_init"] is None or tokens["seg_init"] is None
    assert (signature(config) == recorded(option)) != redefined


def test_the_signatures_of_then_differ():
    every = [FIRST["signature"], *(cell["signature"] for cell in FIRST["options"].values())]
    assert len(set(every)) > 30


def option_file(option):
    group, _, name = option.partition("=")
    return PROJECT / "experiments" / group / f"{name}.yaml"


@pytest.mark.parametrize("option", ["", *(o for o in FIRST["options"] if option_file(o).exists())])
def test_no_option_file_has_a_new_key_that_counts(compose_run, option):
    """A value may be changed on purpose; a key that is added stands in `keyseg.config.ADDED`.

    There, an option file may give it another value than the one that does nothing, and is another
    cell then: self, random_key and shuffled_key are not what they were.
    """
    today = signed(compose_run(*([option] if option else [])))
    then = signed(validate(resolved(option)))
    new = sorted(
        key for key in set(today) - set(then) if not any(fnmatch(key, added) for added in ADDED)
    )
    assert not new, f"list in keyseg.config.ADDED, with the value that does nothing: {new}"


def test_a_class_that_moves_within_keyseg_changes_nothing(first):
    first["fusion"]["_target_"] = "keyseg.somewhere.else.Full"
    for source in first["data"]["sources"].values():
        source["_target_"] = source["_target_"].replace("keyseg.data.", "keyseg.data.readers.")
    assert signature(first) == FIRST["signature"]


def test_another_class_under_the_same_name_is_another_cell(first):
    first["fusion"]["_target_"] = "keyseg.model.fusion.Cross"
    other = signature(first)
    assert other != FIRST["signature"]
    first["fusion"]["_target_"] = "lab.Full"
    moved = signature(first)
    assert moved not in (FIRST["signature"], other)
    first["fusion"]["_target_"] = "lab.variants.Full"
    assert signature(first) == moved


def test_another_reader_is_another_cell(first):
    source = first["data"]["sources"]["long"]
    source["_target_"] = "keyseg.data.grefer.read"
    assert signature(first) != FIRST["signature"]


@pytest.mark.parametrize("term", [0, 0.0, {"weight": 0, "width": 3}])
def test_a_new_term_of_the_loss_at_weight_0_does_not_count(first, term):
    first["loss"]["terms"] = {"edge": term}
    assert signature(first) == FIRST["signature"]


@pytest.mark.parametrize("term", [0.5, {"weight": 1, "width": 3}])
def test_a_new_term_of_the_loss_counts_above_0(first, term):
    first["loss"]["terms"] = {"edge": term}
    assert signature(first) != FIRST["signature"]


def test_a_term_that_is_a_number_is_its_weight(first):
    first["loss"]["terms"] = {"edge": 0.5}
    short = signature(first)
    first["loss"]["terms"] = {"edge": {"weight": 0.5}}
    assert signature(first) == short


def test_the_first_terms_count_at_0(first):
    first["loss"]["keyword"]["weight"] = 0
    assert signature(first) == recorded("loss.keyword.weight=0")


def test_a_key_of_a_later_day_counts_at_any_value_but_its_neutral_one(first, monkeypatch):
    monkeypatch.setitem(config.ADDED, "fusion.dropout", 0.0)
    first["fusion"]["dropout"] = 0
    assert signature(first) == FIRST["signature"]
    first["fusion"]["dropout"] = 0.1
    assert signature(first) != FIRST["signature"]
