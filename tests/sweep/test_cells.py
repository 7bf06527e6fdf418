import pytest
from hydra import compose, initialize_config_dir

from keyseg.config import PROJECT, ConfigError, signature
from keyseg.sweep.cells import BY_SEED, cell_of, freeze, in_turn
from keyseg.sweep.compose import Composer
from keyseg.sweep.design import Point, read_design
from keyseg.sweep.local.launcher import DebugLauncher, LocalLauncher
from keyseg.sweep.slurm.launcher import SlurmLauncher


@pytest.fixture
def composer():
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        yield lambda overrides: compose("config", list(overrides))


def test_every_cell_gets_its_config_and_its_place(composer, tmp_path):
    rows = [[f"fusion={f}", f"paths.outputs={tmp_path}", "rerun=true"] for f in ("cross", "full")]
    cross, full = freeze(read_design(rows), composer)
    assert cross.config.fusion["name"] == "cross"
    assert cross.signature == signature(cross.config) != full.signature
    assert cross.path == tmp_path / "fusion" / cross.signature
    assert not full.config.rerun  # an order to us, not to a worker that starts again
    run = full.create()
    assert run.config == full.config
    assert run.info["factors"] == {"fusion": "full"}
    assert run.info["label"] == "full"
    assert run.info["sweep"] == "fusion"


@pytest.mark.parametrize("shared", [False, True])
def test_a_multiple_of_the_budget_is_one_of_what_the_command_line_says(composer, shared):
    rows = [[f"planted={p}", "optim.steps=6"] for p in ("none", "twice")]
    plain, twice = freeze(read_design(rows), Composer(composer) if shared else composer)
    assert (plain.config.optim.steps, twice.config.optim.steps) == (6, 12)
    assert twice.config.optim.times == 1  # whoever reads it again multiplies no more
    assert twice.signature == signature(composer(["optim.steps=12"]))


def test_a_wrong_value_in_the_last_cell_is_found_before_anything_is_written(composer, tmp_path):
    rows = [[f"paths.outputs={tmp_path}", f"optim.steps={n}"] for n in ("5", "-1")]
    with pytest.raises(ConfigError, match=r"cell .*optim.steps=-1: optim.steps=-1: must be 0"):
        freeze(read_design(rows), composer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["seed=3", "runtime.threads=2"])
def test_a_run_that_stands_twice_in_a_sweep_is_an_error(composer, key):
    name = key.split("=")[0]
    with pytest.raises(
        ConfigError, match=rf"same run: 'fusion=full {name}=3' and 'fusion=full {key}'"
    ):
        freeze(read_design([["fusion=full", f"{name}=3"], ["fusion=full", key]]), composer)


def test_by_seed_all_variants_start_before_the_next_seed(composer):
    fusions, seeds = ("self", "cross", "full", "add"), (5, 3)
    rows = [[f"fusion={f}", f"seed={s}"] for f in fusions for s in seeds]
    cells = freeze(read_design(rows), composer)
    assert in_turn(cells) == cells
    started = in_turn(cells, BY_SEED)
    assert [cell.config.seed for cell in started] == [5] * 4 + [3] * 4
    first, second = ([c.label for c in part] for part in (started[:4], started[4:]))
    assert sorted(first) == sorted(second) == sorted(fusions)
    assert first != second  # no variant is always the first
    again = in_turn([*cells[4:], *cells[:4]], BY_SEED)
    assert again == started  # the same command starts them in the same order


def test_an_order_that_is_none(composer):
    with pytest.raises(ConfigError, match=r"launcher.order=random: must be one of given, by_seed"):
        LocalLauncher(order="random")
    for launcher in (LocalLauncher, SlurmLauncher, DebugLauncher):
        assert launcher(order="by_seed").order == "by_seed"


def test_small_budgets_of_a_trunk_start_first(compose_run):
    def cell(fusion, *overrides):
        point = Point(fusion, {"fusion": fusion}, 0, [])
        return cell_of(compose_run(f"fusion={fusion}", *overrides), point, "sweep")

    wsd = [
        cell(fusion, "optim.schedule=wsd", f"optim.steps={steps}")
        for fusion in ("cross", "full")
        for steps in (400, 100)
    ]
    order = [(c.label, c.config.optim.steps) for c in in_turn(wsd)]
    assert order == [("cross", 100), ("full", 100), ("cross", 400), ("full", 400)]
    cosine = [cell("cross", f"optim.steps={steps}") for steps in (400, 100)]
    assert in_turn(cosine) == cosine  # nothing to go on from
