"""Seeds that come look by look: what a design asks for, and the way from look to look."""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyseg.config import ConfigError
from keyseg.runs import declaration, disk, looks, sweep_directory
from keyseg.runs.looks import EQUIVALENT, LOOKS, OPEN, LookPlan, Ruling, TakenLook
from keyseg.sweep import looks as from_look_to_look
from keyseg.sweep.design import Design, contrasts_of, read_design, to_json
from keyseg.sweep.replicate import replicate
from keyseg.sweep.supervise import Outcome

PLAN = LookPlan(tuple(range(6)), (3, 4, 6), "obrien_fleming")


def ruling(contrast: str, word: str, *labels: str) -> Ruling:
    return Ruling(contrast, word, labels, 0.1, 0.01, 0.9, 0.04, 1.0, 0.5, 3)


def look(number: int, *rulings: Ruling, design: str = "") -> TakenLook:
    return TakenLook(
        number, PLAN.at[number - 1], "giou", "teacher_forced", rulings, {}, design, float(number)
    )


def cells(*labels: str) -> list[Any]:
    return [
        SimpleNamespace(
            label=label,
            signature=f"{label}{seed}",
            title=f"{label} · seed {seed}",
            rerun=False,
            config=SimpleNamespace(seed=seed),
        )
        for label in labels
        for seed in PLAN.seeds
    ]


@pytest.mark.parametrize(
    ("block", "until", "at"),
    [
        (None, None, ()),
        ("seed", None, ()),
        ({"key": "seed"}, None, ()),
        (None, "verdict", LOOKS),
        ("seed", "verdict", LOOKS),
        ({"until": "verdict"}, None, LOOKS),
        ({"until": "verdict", "at_most": 6}, None, (3, 4, 6)),
        ({"until": "verdict", "first": 5, "at_most": 12}, None, (5, 6, 8, 10, 12)),
        ({"until": "verdict", "looks": [2, 9]}, None, (2, 9)),
        ({"until": "verdict", "first": 4, "at_most": 4}, None, (4,)),
        ({"looks": [3, 5], "at_most": 5}, "verdict", (3, 5)),
    ],
)
def test_when_seeds_come(block: Any, until: str | None, at: tuple[int, ...]) -> None:
    assert replicate(block, until).at == at


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"untill": "verdict"}, "Did you mean until?"),
        ({"until": "done"}, "must be verdict"),
        ({"first": 3}, "ablation.replicate.first does nothing without until"),
        ({"until": "verdict", "key": "fold"}, "must be seed"),
        ({"until": "verdict", "looks": [4, 3]}, "must rise"),
        ({"until": "verdict", "looks": [1, 3]}, "from at least 2"),
        ({"until": "verdict", "looks": [3, 300]}, "at most 100"),
        ({"until": "verdict", "looks": [3, 4], "at_most": 6}, "do not go from first=3 to"),
        ({"until": "verdict", "looks": "3,4"}, "give a list"),
        ({"until": "verdict", "first": 2.5}, "2.5 is no number of seeds"),
        ({"until": "verdict", "first": True, "at_most": 4}, "True is no number of seeds"),
        ({"until": "verdict", "first": 8, "at_most": 4}, "must rise"),
        ({"until": "verdict", "family": "bonferroni"}, "one of obrien_fleming, pocock"),
    ],
)
def test_what_does_not_fit_is_one_line(block: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=r"ablation\.replicate") as error:
        replicate(block)
    assert said in str(error.value)


def test_the_seeds_of_the_command_come_first_and_are_counted_on() -> None:
    rows = [f"fusion={f} seed={s} until=verdict".split() for f in ("full", "self") for s in (7, 5)]
    design = read_design(rows, until="verdict")
    assert design.looks == LookPlan((7, 5, 8, 9, 10, 11, 12, 13, 14, 15), LOOKS, "obrien_fleming")
    assert [(p.label, p.seed) for p in design.points[:3]] == [("full", 7), ("full", 5), ("full", 8)]
    assert len(design.points) == 20
    assert design.points[0].overrides == ["fusion=full", "until=verdict", "seed=7"]
    assert (design.name, contrasts_of(design)) == ("fusion", 1)
    without = read_design([["fusion=full"], ["fusion=self"]], {"replicate": {"until": "verdict"}})
    assert [p.seed for p in without.points[:4]] == [0, 1, 2, 3]
    assert read_design(rows).looks is None


def test_more_seeds_than_the_last_look_has_are_refused() -> None:
    rows = [["fusion=full", f"seed={s}"] for s in range(11)]
    with pytest.raises(ConfigError, match="gives 11 seeds, and until=verdict takes at most 10"):
        read_design(rows, until="verdict")
    with pytest.raises(ConfigError, match=r"there is one variant \(full\), and nothing to decide"):
        read_design([["fusion=full"]], fusion="full", until="verdict")
    with pytest.raises(ConfigError, match="must be numbers"):
        read_design([["fusion=full", "seed=a"]], until="verdict")


def test_only_variants_of_open_contrasts_get_the_next_seeds() -> None:
    every = cells("a", "b", "c")

    def counts(*taken: TakenLook) -> dict[str, int]:
        found = from_look_to_look.asked_for(every, PLAN, taken)
        return {label: sum(c.label == label for c in found) for label in "abc"}

    first = look(1, ruling("b − a", EQUIVALENT, "b", "a"), ruling("c − a", OPEN, "c", "a"))
    assert counts() == {"a": 3, "b": 3, "c": 3}
    assert counts(first) == {"a": 4, "b": 3, "c": 4}
    assert counts(first, look(2, ruling("c − a", OPEN, "c", "a"))) == {"a": 6, "b": 3, "c": 6}
    last = look(3, ruling("c − a", OPEN, "c", "a"))
    assert counts(first, look(2, ruling("c − a", OPEN, "c", "a")), last)["c"] == 6
    assert looks.ended(PLAN, [first, look(2, ruling("c − a", EQUIVALENT, "c", "a"))])
    assert not looks.ended(PLAN, [first])


class Bench:
    """A sweep whose cells are files, and a rule that decides by what is in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = cells("a", "b", "c")
        self.said: list[str] = []
        folder.mkdir(exist_ok=True)

    def work(self, asked: Sequence[Any]) -> list[Outcome]:
        for cell in asked:
            file = self.folder / f"{cell.signature}.done"
            if not file.exists():
                with (self.folder / "starts.txt").open("a") as starts:
                    starts.write(f"{cell.signature}\n")
                time.sleep(0.002)
                disk.replace(file, str(hash_of(cell.signature)).encode())
        return [Outcome(cell, "done") for cell in asked]

    def decide(self, folder: Path) -> TakenLook:
        """b is decided at the second look, c stays open."""
        taken = looks.read(folder)
        number = len(taken) + 1
        with (folder / "decided.txt").open("a") as file:
            file.write(f"{number}\n")
        samples = {f.stem: f.read_text() for f in sorted(folder.glob("*.done"))}
        c, b = ruling("c − a", OPEN, "c", "a"), ruling("b − a", OPEN, "b", "a")
        time.sleep(0.002)
        rulings = [(b, c), (ruling("b − a", EQUIVALENT, "b", "a"), c), (c,)][number - 1]
        return TakenLook(
            number, PLAN.at[number - 1], "giou", "p", rulings, samples, "", time.time()
        )

    def run(self, decide: looks.Decide | None = None) -> list[Outcome]:
        return from_look_to_look.run(
            self.folder,
            self.cells,
            PLAN,
            work=self.work,
            decide=decide or self.decide,
            say=self.said.append,
        )

    def starts(self) -> list[str]:
        return (self.folder / "starts.txt").read_text().split()


def hash_of(text: str) -> int:
    return sum(map(ord, text))


def test_from_look_to_look(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "s")
    outcomes = bench.run()
    assert len(outcomes) == 6 + 4 + 6
    assert sorted(bench.starts()) == sorted({*bench.starts()})
    assert bench.said[0] == "look 1 of 3 (3 seeds): nothing is decided"
    assert bench.said[1] == "open: b − a, c − a; 1 more seed for a, b, c"
    assert bench.said[2] == "look 2 of 3 (4 seeds): b − a: equivalent"
    assert bench.said[-1] == "open after 6 seeds: c − a"
    again = Bench(tmp_path / "s")
    assert len(again.run(decide=lambda folder: pytest.fail("decided twice"))) == 16
    assert again.said == []


def test_a_look_needs_all_of_its_cells(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "s")

    def work(asked: Sequence[Any]) -> list[Outcome]:
        return [Outcome(c, "failed" if c.signature == "b1" else "done") for c in asked]

    bench.work = work  # type: ignore[method-assign]
    assert len(bench.run()) == 9
    assert bench.said == ["look 1 is not taken: it needs all of its cells"]
    assert looks.read(bench.folder) == []


def test_a_look_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    first, _ = looks.take(tmp_path, 1, lambda folder: look(1, ruling("b − a", OPEN, "b", "a")))
    second, now = looks.take(tmp_path, 1, lambda folder: pytest.fail("taken again"))
    assert (second, now) == (first, False)
    (tmp_path / looks.LOOKS_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"looks.json cannot be read .* name=OTHER"):
        looks.read(tmp_path)


def test_killed_at_any_moment_every_look_is_taken_once(tmp_path: Path) -> None:
    """SIGKILL again and again, from the first cell to the last look."""
    whole = Bench(tmp_path / "whole")
    whole.run()
    rng = random.Random(0)
    seen = set()
    for attempt in range(8):
        bench, kills = Bench(tmp_path / f"s{attempt}"), 0
        while kills < 20 and killed(bench, start(bench), rng.randint(1, 6)):
            kills += 1
            seen.add(len(looks.read(bench.folder)))
        bench.run()
        for ours, theirs in zip(looks.read(bench.folder), looks.read(whole.folder), strict=True):
            assert (ours.rulings, ours.samples) == (theirs.rulings, theirs.samples)
        assert {*bench.starts()} == {*whole.starts()}
        assert len(bench.starts()) <= len(whole.starts()) + kills
    assert seen >= {0, 1, 2}, "the kills fell into different looks"


def killed(bench: Bench, child: int, steps: int) -> bool:
    """Kill a process after some of its steps; whether it had not ended by itself."""

    def progress() -> int:
        files = (bench.folder / name for name in ("starts.txt", "decided.txt"))
        return sum(len(file.read_text().split()) for file in files if file.exists())

    until, deadline = progress() + steps, time.monotonic() + 60
    while progress() < until:
        assert time.monotonic() < deadline
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def start(bench: Bench) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads
        child = os.fork()
    if child == 0:
        try:
            bench.run()
        finally:
            os._exit(0)
    return child


def written(folder: Path, **changes: Any) -> dict[str, Any]:
    points = read_design([["fusion=a"], ["fusion=b"]], until="verdict").points
    design = Design("t", {"fusion": ["a", "b"]}, {"fusion": "a"}, points, looks=PLAN, **changes)
    signatures = [f"{p.label}{p.seed}" for p in points]
    content = to_json(design, signatures, [int(p.seed or 0) for p in points], "c", 1.0)
    content["declared"] = declaration.first(sweep_directory.read(folder), content, 1.0)
    return content


def test_planned_cells_become_cells_and_the_declaration_stays(tmp_path: Path) -> None:
    content = sweep_directory.asking(written(tmp_path), ["a0", "b0"])
    sweep_directory.write(tmp_path, content)
    assert [c["signature"] for c in content["cells"]] == ["a0", "b0"]
    sweep_directory.ask_for(tmp_path, ["b0", "a0", "b1"])
    after = sweep_directory.read(tmp_path)
    assert [c["signature"] for c in after["cells"]] == ["a0", "b0", "b1"]
    assert sweep_directory.signatures(after) == sweep_directory.signatures(content)
    assert after["declared"] == content["declared"]
    changed = written(tmp_path, question="Why?", margin={"giou": 3.0})
    assert changed["declared"] == content["declared"]
    assert declaration.of(changed)["question"] == "Why?"


def test_looks_of_another_design_are_not_gone_on_with(tmp_path: Path) -> None:
    content = written(tmp_path)
    digest = declaration.tested(declaration.of(content))
    looks.take(tmp_path, 1, lambda f: look(1, ruling("b − a", OPEN, "b", "a"), design=digest))
    from_look_to_look.check_design(tmp_path, content)
    from_look_to_look.check_design(tmp_path, written(tmp_path, question="Why?"))
    with pytest.raises(ConfigError, match="taken by another design"):
        from_look_to_look.check_design(tmp_path, written(tmp_path, margin={"giou": 3.0}))


def test_what_a_look_rests_on_is_not_run_again() -> None:
    every = cells("a", "b")
    taken = [look(1, ruling("b − a", OPEN, "b", "a"))]
    taken[0].samples["a0"] = "0"  # type: ignore[index]
    from_look_to_look.check_rerun("t", every, taken)
    every[0].rerun = every[7].rerun = True
    with pytest.raises(ConfigError, match="a · seed 0 is not run again: what look 1 of t decided"):
        from_look_to_look.check_rerun("t", every, taken)
    from_look_to_look.check_rerun("t", every[1:], taken)
