"""Head nouns of referring expressions: how often the rules err, and each rule by hand."""

import csv
from pathlib import Path

import pytest

from keyseg.data.keywords.head_noun import head_noun

MOST_ERRORS = 0.03


@pytest.mark.parametrize("name", ["written", "held_out"])
def test_rules_err_in_less_than_3_percent(name):
    """benchmarks/keywords.py prints more; the sentences of held_out.csv are never looked at."""
    with (Path(__file__).parent / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missed = [row for row in rows if (head_noun(row["expression"]) or "") != row["keyword"]]
    print(f"{name}: {len(missed)} of {len(rows)} wrong")
    assert len(rows) >= 100
    assert len(missed) < MOST_ERRORS * len(rows)


@pytest.mark.parametrize(
    ("expression", "head"),
    [
        ("a red and blue kettle", "kettle"),
        ("a black and a white dog", "dog"),
        ("the man's black and tan boot", "boot"),
        ("cat and dog on a sofa", "cat"),
        ("an orange and a banana", "orange"),
        ("the green , yellow and white bus", "bus"),
        ("orange , on the left", "orange"),
        ("an orange , red and white train", "train"),
    ],
)
def test_and_joins_kinds_of_one_thing(expression, head):
    assert head_noun(expression) == head


@pytest.mark.parametrize(
    ("expression", "head"),
    [
        ("boats docked in a row", "boat"),
        ("stacked chairs", "chair"),
        ("chocolate frosted donut", "donut"),
        ("a horse drawn carriage", "carriage"),
        ("a rolled up blanket", "blanket"),
        ("a half eaten apple", "apple"),
        ("a dining table set for two", "dining table"),
        ("woman dressed in white", "woman"),
        ("the bird snorfled behind a cage", "bird"),  # no word of the lexicon
    ],
)
def test_participles(expression, head):
    assert head_noun(expression) == head


@pytest.mark.parametrize(
    ("expression", "head"),
    [
        ("a cat stands beside a bowl", "cat"),
        ("a boat floats by", "boat"),
        ("two zebras graze", "zebra"),
        ("sheep graze", "sheep"),
        ("the dog chases a ball", "dog"),
        ("a hand points a remote at the tv", "hand"),
        ("a girl painting a fence", "girl"),
        ("an oil painting", "painting"),
        ("the dog toys in the basket", "toy"),
        ("coffee cups on a shelf", "coffee cup"),
        ("the boys shirt", "shirt"),
        ("the giraffes neck", "neck"),
        ("the mans tie", "tie"),
    ],
)
def test_a_verb_agrees_with_its_subject(expression, head):
    assert head_noun(expression) == head


@pytest.mark.parametrize(
    ("expression", "head"),
    [
        ("the kettle the boy is holding", "kettle"),
        ("frisbee girl is throwing", "frisbee"),
        ("a chair nobody sits on", "chair"),
        ("the tennis player is smiling", "player"),
        ("the remote his hand is on", "remote"),
    ],
)
def test_clauses_without_a_pronoun(expression, head):
    assert head_noun(expression) == head


@pytest.mark.parametrize(
    ("expression", "head"),
    [
        ("a cup directly underneath the lamp", "cup"),
        ("woman mostly hidden", "woman"),
        ("slightly open drawer", "drawer"),
        ("the tallest of the men", "man"),
        ("most colorful kite", "kite"),
        ("the boy 's t - shirt", "t-shirt"),
        ("a long - haired man", "man"),
        ("man - in black", "man"),
        ("woman black dress", "woman"),
        ("dog w/ a collar & a tag", "dog"),
        ("the woman's", "woman"),
        ("that man", "man"),
        ("a garbage can by the wall", "garbage can"),
        ("two wine glasses", "wine glass"),
        ("a red pick up truck", "pickup truck"),
        ("the zebras head that is down", "head"),
    ],
)
def test_adverbs_superlatives_and_marks(expression, head):
    assert head_noun(expression) == head


@pytest.mark.parametrize(
    "expression",
    [
        "the one with blue cap",
        "the one wearing glasses",
        "the one eating cake",
        "second one from the left",
        "the red in front of the truck",
        "wearing a cap",
        "eating a banana",
        "on the bench",
        "far right in red shirt",
        "someone in a hat",
    ],
)
def test_no_kind_of_object_is_named(expression):
    assert head_noun(expression) is None


@pytest.mark.parametrize(
    ("expression", "head"),
    [
        ("one of two cows", "cow"),
        ("one smiling man", "man"),
        ("a pic of a lady", "woman"),
        ("this image is of a dog", "dog"),
        ("a close up of a cat", "cat"),
        ("an action shot of a skier", "skier"),
        ("there is a bus in the street", "bus"),
        ("in the corner a cat", "cat"),
        ("behind the fence is a cow", "cow"),
        ("in front is a dog", "dog"),
        ("to the right of the sink , a toothbrush", "toothbrush"),
        ("couple in front of a bus", "couple"),
        ("a couple of kids", "child"),
    ],
)
def test_what_comes_before_the_phrase(expression, head):
    assert head_noun(expression) == head
