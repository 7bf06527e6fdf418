"""What cells are called on the screen."""

import pytest

from keyseg.runs.titles import by_reason, in_brief, title_of, unique_titles


@pytest.mark.parametrize(
    ("titles", "brief"),
    [
        (["full"], "full"),
        (["full · seed 0"], "full · seed 0"),
        (["full · seed 2", "full · seed 0", "full · seed 1"], "full · seeds 0-2"),
        (["a · seed 0", "b · seed 1", "a · seed 7"], "a · seeds 0 and 7, b · seed 1"),
        (["a · seed 0 · x12345", "b"], "a · seed 0 · x12345, b"),
    ],
)
def test_seeds_of_a_label_stand_together(titles, brief):
    assert in_brief(titles) == brief


def test_of_many_labels_the_first_are_named_and_the_others_counted():
    titles = [title_of(f"v{n}", seed) for seed in range(3) for n in range(16)]
    brief = in_brief(titles)
    assert brief.startswith("v0 · seeds 0-2, v1 · seeds 0-2, ")
    assert brief.endswith("v5 · seeds 0-2 and 30 more cells")
    assert in_brief(titles[:7]).endswith(", v5 · seed 0 and 1 more cell")
    assert in_brief(titles, labels=None).endswith("v14 · seeds 0-2, v15 · seeds 0-2")


def test_cells_with_the_same_reason_are_a_line():
    reasons = [
        ("a · seed 0", "loss: dice"),
        ("b", "other data"),
        ("a · seed 1", "loss: dice"),
    ]
    assert by_reason(reasons) == ["a · seeds 0-1: loss: dice", "b: other data"]


def test_titles_say_no_more_than_they_must():
    assert unique_titles([("a", 0, "s1"), ("b", 0, "s2")]) == ["a", "b"]
    assert unique_titles([("a", 0, "s1"), ("a", 1, "s2")]) == ["a · seed 0", "a · seed 1"]
    twice = unique_titles([("a", 0, "x123456"), ("a", 0, "y123456")])
    assert twice == ["a · seed 0 · x12345", "a · seed 0 · y12345"]
