"""What docs/extending.md promises, done once by a package that lies outside the checkout.

A fusion variant, a term of the loss, a measure, a reader, a sweep file, a figure, a section and a
launcher, in a real sweep of two small cells; then what is wrong with a package, found by --dry.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

from keyseg.config import PROJECT
from tests.outside import FILES, write


def test_a_sweep_of_the_package_is_found_and_run_by_its_launcher(real_sweep):
    cells, out = real_sweep
    assert "run by mine" in out
    assert {label: run.status for label, run in cells.items()} == {
        "gate": "done",
        "gate_copy": "done",
    }


def test_an_option_is_called_what_its_file_is_called(real_sweep):
    cells, _ = real_sweep
    run = cells["gate_copy"].config
    assert (run.fusion["name"], run.loss.name, run.data["name"]) == (
        "gate_copy",
        "edged",
        "capitals",
    )


def test_a_term_is_trained_logged_and_part_of_the_total(real_sweep):
    cells, _ = real_sweep
    rows = cells["gate"].metrics()
    last = rows[rows["step"] == 2].set_index("name")["value"]
    cfg = cells["gate"].config.loss
    own = {"text": cfg.text, "bce": cfg.bce, "dice": cfg.dice, "keyword": cfg.keyword.weight}
    weights = {**own, "edge": 0.5}
    total = sum(weight * last[f"train/{name}"] for name, weight in weights.items())
    assert last["train/edge"] > 0
    assert last["train/loss"] == pytest.approx(total, rel=1e-4)


def test_a_measure_is_in_the_summary_and_in_the_tables(real_sweep, shell):
    cells, _ = real_sweep
    for scores in cells["gate"].info["summary"].values():
        assert 0 <= scores["poor_rate"] <= 1
    page = (shell.folder / "rep/edges/index.html").read_text()
    assert "Further measures" in page
    assert "share with IoU &lt; 0.9" in page
    table = pd.read_csv(shell.folder / "rep/edges/tables/results.csv")
    assert any("poor_rate" in str(column) for column in [*table.columns, *table.to_numpy().ravel()])


def test_figure_and_section_are_on_both_pages(real_sweep, shell):
    report = shell.folder / "rep/edges"
    page, plain = (report / "index.html").read_text(), (report / "report.md").read_text()
    assert (report / "figures/areas.png").exists()
    for text in ("Areas", "Predicted areas.", "Remarks of mine", "2 cells were looked at."):
        assert text in page
        assert text in plain
    assert 'id="figure-areas"' in page
    assert page.index("<h2>Results</h2>") < page.index("<h2>Remarks of mine</h2>")


def test_a_reader_is_called(real_sweep):
    cells, _ = real_sweep
    samples = cells["gate"].samples()
    short = samples[samples["slice_style"] == "short"]
    assert len(short)
    assert short["query"].str.isupper().all()


def test_the_run_says_which_package_it_needed(real_sweep, package):
    cells, _ = real_sweep
    found = cells["gate"].info["packages"]["mine"]
    assert found["version"] == "0.3"
    assert len(found["source"]) == 12


def test_the_mlflow_model_has_the_package_in_it(real_sweep, shell, tmp_path):
    cells, _ = real_sweep
    code = (
        "import sys; from pathlib import Path; from keyseg.runs import packages\n"
        "from keyseg.runs.run_directory import RunDirectory; from keyseg.tracking import model\n"
        "packages.load(); model.write(RunDirectory(sys.argv[1]), Path(sys.argv[2]))"
    )
    folder = tmp_path / "model"
    status, out, err = shell("-c", code, str(cells["gate"].path), str(folder))
    assert status == 0, out + err
    assert (folder / "code/mine/variants.py").exists()
    load = (
        "import sys, mlflow.pyfunc; m = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "import mine; print(mine.__file__)"
    )
    status, _, err = shell("-c", load, str(folder), package="")
    assert status
    assert "export KEYSEG_PACKAGES=mine" in err
    asked = ("-c", load, str(folder))
    status, out, err = shell(*asked, package="", new=True, KEYSEG_PACKAGES="mine")
    assert status == 0, err
    assert out.strip() == str(folder / "code/mine/__init__.py")


def test_an_export_says_what_it_needs(real_sweep, shell, tmp_path):
    cells, _ = real_sweep
    folder = tmp_path / "exported"
    command = ("-m", "keyseg", "export", str(cells["gate"].path), str(folder))
    status, out, err = shell(*command)
    assert status == 0, out + err
    assert json.loads((folder / "keyseg.json").read_text())["needs"] == ["mine==0.3"]
    said = " ".join((folder / "README.md").read_text().split())
    assert "segment-anything, mine==0.3 and keyseg" in said


def test_jobs_run_a_copy_of_the_package(real_sweep, shell, tmp_path):
    cells, _ = real_sweep
    code = (
        "import sys; from pathlib import Path; from keyseg.runs import packages, snapshot\n"
        "from keyseg.runs.run_directory import RunDirectory\n"
        "needed = packages.carried([RunDirectory(sys.argv[1]).config])\n"
        "print(snapshot.take(Path(sys.argv[2]), packages=needed))"
    )
    status, out, err = shell("-c", code, str(cells["gate"].path), str(tmp_path))
    assert status == 0, err
    taken = Path(out.strip())
    for name in ("mine/variants.py", "mine/experiments/fusion/gate.yaml", "keyseg/config.py"):
        assert (taken / name).exists()
    variants = shell.package / "mine/variants.py"
    before = variants.read_text()
    try:
        variants.write_text(before + "\n# another day\n")
        status, out, err = shell("-c", code, str(cells["gate"].path), str(tmp_path))
    finally:
        variants.write_text(before)
    assert Path(out.strip()) != taken


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fusion=full", "fusion.heads=5"], "fusion=full (keyseg.model.fusion.Full)"),
        (["fusion=gate", "+fusion.width=0"], "width=0: must be 1 or more"),
        (["fusion=gate", "+fusion.wdth=3"], "unexpected keyword argument 'wdth'"),
        (["fusion=gate", "fusion._target_=mine.variants.Gat"], "fusion._target_=mine.variants.Gat"),
        (["loss=edged", "+loss.terms.edgy=1"], "no such term. Did you mean 'edge'?"),
        (["+loss.terms.edge={weight: 1, pwer: 2}"], "unexpected keyword argument 'pwer'"),
        (["data=capitals", "+data.sources.long.colour=red"], "data.sources.long"),
        (["fusion=gate", "fusion.name=other"], "called what its file is called"),
    ],
)
def test_what_is_wrong_is_said_by_dry(shell, overrides, message):
    status, out, err = shell.run("-m", "--dry", *overrides, "seed=0,1")
    assert status == 2, out + err
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_an_entry_point_that_cannot_be_imported_is_named(shell, tmp_path):
    broken = write(tmp_path, {**FILES, "mine/losses.py": "import no_such_thing\n"})
    status, _, err = shell.run("--dry", "seed=1", package=broken)
    assert status == 2
    assert "package mine 0.3 (entry point mine = mine.join) cannot be imported" in err
    assert "no_such_thing" in err


@pytest.mark.parametrize("way", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
def test_a_folder_of_options_is_enough(shell, tmp_path, way):
    write(tmp_path, {"fusion/wide.yaml": (PROJECT / "experiments/fusion/full.yaml").read_text()})
    status, out, err = shell.run(way.format(tmp_path), "fusion=wide", "--dry", package="")
    assert status == 0, err
    assert out.startswith("wide · seed 0: ")
    status, _, err = shell.run(way.format(tmp_path), "fusion=wid", "--dry", package="")
    assert status == 2
    assert "Did you mean 'wide'?" in err


def test_a_place_that_is_not_there_is_said(shell, tmp_path):
    status, _, err = shell.run(f"hydra.searchpath=[file://{tmp_path}/none]", "--dry", package="")
    assert status == 2
    assert f"hydra.searchpath: there is no folder {tmp_path}/none" in err


def test_help_lists_what_the_package_brings(shell):
    status, out, _ = shell(str(PROJECT / "run.py"), "--help")
    assert status == 0
    assert "gate " in out
    assert "Gated KEY." in out
    assert "Does a gate help?" in out
