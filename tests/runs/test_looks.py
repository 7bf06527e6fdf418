"""Where the contrasts of a sweep with looks stand, in lines."""

from keyseg.runs.looks import DIFFERS, OPEN, LookPlan, Ruling, TakenLook, contrast_lines

PLAN = LookPlan(seeds=tuple(range(6)), at=(3, 4, 6), family="pocock")


def ruling(contrast, word, overall, chance):
    labels = tuple(contrast.split(" − "))
    return Ruling(contrast, word, labels, 0.1, 0.02, 0.3, overall, 0.7, chance, 3)


def look(number, *rulings):
    return TakenLook(number, PLAN.at[number - 1], "giou", "generated", rulings, {}, "d", 0.0)


def test_before_the_first_look_all_is_open():
    assert contrast_lines(PLAN, []) == [
        "no look of 3 (at 3, 4, 6 seeds, pocock) is taken yet; every contrast is open"
    ]


def test_each_contrast_has_the_look_that_spoke_of_it_last():
    first = look(1, ruling("a − c", DIFFERS, 0.0123, 1.0), ruling("longer − c", OPEN, 1.0, 0.5))
    second = look(2, ruling("longer − c", OPEN, 0.0601, 0.834))
    assert contrast_lines(PLAN, [first, second]) == [
        "look 2 of 3 (at 3, 4, 6 seeds, pocock) is taken; giou decides, where a p over all looks "
        "so far, corrected, is at most 0.05",
        "  a − c       differs     look 1  p = 0.012, equivalence p = 0.7",
        "  longer − c  open        look 2  p = 0.06, equivalence p = 0.7, 83 % chance of a verdict",
    ]
