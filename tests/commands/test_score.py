"""`keyseg score`, on a run directory whose masks are known."""

import pandas as pd
import pytest

from keyseg import cli
from keyseg.runs.run_directory import DONE, RunDirectory
from tests.dialects.test_dialects import MIX


@pytest.fixture
def outputs(small_run, tmp_path):
    run = RunDirectory.create(tmp_path / "single" / "abc", small_run())
    run.best_file.parent.mkdir(exist_ok=True)
    run.best_file.touch()
    run.update(status=DONE, label="full", seed=0)
    run.write_samples(MIX.assign(protocol="teacher_forced"))
    return tmp_path


def keyseg(outputs, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--outputs", str(outputs), "score", *arguments])
    return caught.value.code


def test_one_line_for_each_dialect_and_the_same_fractions_in_a_file(outputs, capsys):
    file = outputs / "scores.csv"
    assert keyseg(outputs, "abc", "--csv", str(file)) == 0
    printed = capsys.readouterr().out
    found = pd.read_csv(file).set_index("dialect")
    assert found.loc["lisa", "giou"] == pytest.approx(2.5 / 4)
    assert found.loc["segzero", "giou"] == pytest.approx(1.5 / 4)
    assert "62.5" in printed
    assert "37.5" in printed
    assert "nan" not in printed
    assert "gsva: there a pixel belongs" in printed
    assert found.loc["lisa", "more"] == pytest.approx(2.5 / 4 - 2.5 / 5)


def test_a_second_run_is_held_against_the_first_by_example(outputs, small_run):
    better = RunDirectory.create(outputs / "single" / "abd", small_run("seed=1"))
    better.update(status=DONE, label="self", seed=1)
    better.write_samples(
        MIX.assign(
            protocol="teacher_forced", image_id=MIX["id"].str[:-2], mask_rle=MIX["target_rle"]
        )
    )
    file = outputs / "scores.csv"
    assert keyseg(outputs, "abc", "abd", "--csv", str(file), "--dialect", "keyseg") == 0
    first, second = pd.read_csv(file).to_dict("records")
    assert pd.isna(first["difference"])
    assert second["difference"] == pytest.approx(1 - 2.5 / 5)
    assert (second["low"] > 0, second["common"]) == (True, 5)


def test_an_unknown_dialect_is_told_with_its_neighbour(outputs, capsys):
    assert keyseg(outputs, "abc", "--dialect", "lissa") == 2
    assert "--dialect lissa: there is none of this name; lisa?" in capsys.readouterr().err


def test_a_run_that_is_not_finished_has_no_masks(outputs, capsys):
    RunDirectory(outputs / "single" / "abc").update(status="running")
    assert keyseg(outputs, "abc") == 2
    assert "is not finished" in capsys.readouterr().err
