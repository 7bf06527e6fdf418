"""What a sweep's pages in MLflow show: asked of a real store, by MLflow's own search."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keyseg.data.masks import encode_rle
from keyseg.runs import sweep_directory
from keyseg.runs.run_directory import Row, RunDirectory
from keyseg.tracking import pages, parent_run, scores, sync, variant_runs
from keyseg.tracking.description import ReportWords, of_sweep
from keyseg.tracking.names import LONGEST_TAG, name_of, param_name
from keyseg.tracking.store import client_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

GIOU = "test/teacher_forced/giou"
NAME = "giou.test.teacher_forced"
"""What MLflow has it under."""
REPORT = """# fusion: Why?

## Verdicts

A rule.

- gIoU, full − cross: **better**, better: +5.0 points [+1.0, +9.0]

## Results

### Table 1. Headline (measured)

A caption.

| Variant | gIoU |

|:--|--:|

| full | 52.0 |

### Table 2. Other

| Variant | cIoU |

## Figures

![Contrasts](figures/contrasts.svg)

![Not drawn](figures/none.svg)
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory, empty_store):
    """A store of its own for all tests here, which only read it."""
    root = tmp_path_factory.mktemp("pages")
    shutil.copy(empty_store, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        yield client_of(f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture(scope="module")
def sweep(client, compose_run, tmp_path_factory):
    """Two variants, two seeds each; one cell failed. Synced while it ran, and at its end."""
    folder = tmp_path_factory.mktemp("outputs") / "fusion"
    folder.mkdir()
    found = {}
    for label, seed, giou in (
        ("cross", 0, 0.4),
        ("cross", 1, 0.5),
        ("full", 0, 0.52),
        ("full", 1, 0),
    ):
        cfg = compose_run(f"fusion={label}", f"seed={seed}")
        signature = f"{label}{seed}"
        run = RunDirectory.create(folder / signature, cfg, label=label)
        begun = {"started": 1000.0, "user": "ada"}
        run.update(
            signature=signature,
            status="running",
            attempts=[begun],
            data_fingerprint="d1",
            data_counts={"train": {"expressions": 30, "images": 6}},
            git={"commit": "c0ffee", "branch": "main", "remote": "https://host/keyseg.git"},
        )
        found[signature] = run, giou
    cells = [
        {"signature": s, "label": s[:-1], "seed": int(s[-1]), "factors": {"fusion": s[:-1]}}
        for s in found
    ]
    sweep_directory.write(
        folder,
        {
            "name": "fusion",
            "question": "Why?",
            "command": "python run.py -m storage=mysql://me:s3cret@h/x",
            "factors": {"fusion": ["cross", "full"]},
            "baseline": {"fusion": "cross"},
            "replicate": "seed",
            "metrics": ["giou"],
            "cells": cells,
        },
    )
    parent_run.start(folder)
    for signature, (run, giou) in found.items():
        ended = {**run.info["attempts"][0], "ended": 2000.0, "seconds": 1000.0}
        if signature == "full1":
            run.update(status="failed", error="RuntimeError: x", attempts=[ended])
            sync.sync(run)
            continue
        for step in (1, 2):
            run.log([Row("val/giou", giou * step / 2, step, 1000.0 + step)])
        run.log([Row("gradient/fusion", 1.0, 2, 1002.0), Row(GIOU, giou, 2, 1003.0)])
        run.write_samples(samples(folder))
        scored = {"teacher_forced": {"giou": giou, "keyword_accuracy": math.nan}}
        run.update(status="done", attempts=[ended], minutes=16.7, summary=scored)
        sync.sync(run)
    return folder


def samples(folder):
    image = folder / "picture.png"
    Image.new("RGB", (32, 24), "green").save(image)
    mask = np.zeros((24, 32), np.uint8)
    mask[4:12, 4:12] = 1
    rows = [
        {
            "id": f"e{n}",
            "protocol": "teacher_forced",
            "image": str(image),
            "query": f"the left / thing {n}",
            "iou": n / 2,
            "keyword_rank": n,
            "key_asked": True,
            "height": 24,
            "width": 32,
            "target_rle": encode_rle(mask),
            "mask_rle": encode_rle(np.roll(mask, n, 1)),
        }
        for n in range(3)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "report.md").write_text(REPORT)
    (folder / "index.html").write_text("<html>")
    for name in ("tables", "figures"):
        (folder / name).mkdir()
    Image.new("RGBA", (2200, 880), "white").save(folder / "figures/contrasts.png")
    (folder / "tables/contrasts.csv").write_text(
        "protocol,contrast,metric,difference,low,high,verdict,at\n"
        "teacher_forced,full − cross,giou,0.05,0.01,0.09,better,\n"
        "teacher_forced,full − mlp,giou,0.04,0.01,0.07,better,at 60 steps\n"
        "teacher_forced,full − cross,ciou,0.5,0.1,0.9,better,\n"
        "generated,full − cross,giou,0.7,0.1,0.9,better,\n"
        "teacher_forced,self − cross,giou,0.7,0.6,0.8,says nothing,\n"
        "teacher_forced,mlp − cross,giou,,,,no result,\n"
    )
    return folder


@pytest.fixture(scope="module")
def before(client, sweep):
    """The parent run while the report is not made."""
    (sweep / ".mlflow_parent").unlink(missing_ok=True)
    parent_run.update(sweep)
    return parent_of(client, sweep)


@pytest.fixture(scope="module")
def parent(client, sweep, report, before):
    """The parent run at the end."""
    parent_run.finish(sweep, report)
    return parent_of(client, sweep)


def parent_of(client, sweep):
    return client.get_run(sweep_directory.read(sweep)["mlflow_parent"])


def found(client, parent, wanted):
    """Names in alphabetical order: runs that began in one millisecond come in any."""
    runs = client.search_runs([parent.info.experiment_id], wanted)
    return sorted(run.info.run_name for run in runs)


def test_before_a_cell_has_begun_nobody_knows_what_hours_they_will_be(tmp_path):
    """What was logged as GPU-hours would stay beside the CPU-hours that they turned out to be."""
    waits = scores.CellState(RunDirectory(tmp_path / "x"), "full", 0, {"status": "queued"})
    assert not [name for name in parent_run._measured([waits], GIOU) if "hours" in name]


def test_the_parent_says_how_far_a_sweep_is(before):
    assert before.info.status == "RUNNING"
    metrics = before.data.metrics
    assert {key: metrics[key] for key in ("cells", "cells done", "cells failed")} == {
        "cells": 4,
        "cells done": 3,
        "cells failed": 1,
    }
    assert metrics["GPU-hours"] == pytest.approx(4000 / 3600)
    assert metrics[f"best {NAME}"] == 0.52
    assert before.data.params["design.baseline"] == "fusion=cross"
    assert before.data.params["design.factor.fusion"] == "cross, full"
    assert before.data.params["design.seeds"] == "0, 1"
    note = before.data.tags["mlflow.note.content"]
    assert note.startswith("**Why?**\n\n*Interim: verdicts come with the report")
    assert "\n\n3 of 4 cells done, 1 failed · [cells, best first](#/experiments/" in note
    assert "| cross | 2 of 2 | 45.0 % |" in note
    assert "| full | 1 of 2 | 52.0 % |" in note
    assert "[variants]" not in note  # there are none before the end
    assert before.data.tags["keyseg.command"] == "python run.py -m storage=mysql://me:***@h/x"


def test_the_parent_has_the_answer_at_the_end(client, parent):
    assert parent.info.status == "FAILED"
    note = parent.data.tags["mlflow.note.content"]
    assert "- gIoU, full − cross: **better**, better: +5.0 points [+1.0, +9.0]" in note
    assert "[variants](#/experiments/" in note
    assert "| Variant | gIoU |\n|:--|--:|\n| full | 52.0 |" in note
    shown = "report/pictures/contrasts.png"
    picture = f"get-artifact?path={shown}&run_uuid={parent.info.run_id}"
    assert f"![Contrasts]({picture})" in note
    assert "none.png" not in note
    with Image.open(client.download_artifacts(parent.info.run_id, shown)) as image:
        assert image.size == (700, 280)  # as wide as it is shown: the numbers stay in sight
    contrast = {k: v for k, v in parent.data.metrics.items() if k.startswith("contrast/")}
    name = "contrast/full minus cross/giou"
    at = "contrast/full minus mlp at 60 steps/giou"
    assert contrast == {
        name: 0.05,
        f"{name}_low": 0.01,
        f"{name}_high": 0.09,
        at: 0.04,
        f"{at}_low": 0.01,
        f"{at}_high": 0.07,
    }
    assert [a.path for a in client.list_artifacts(parent.info.run_id)] == ["report"]


def test_a_run_a_variant(client, parent):
    mine = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.`keyseg.kind` = 'variant'"
    assert found(client, parent, mine) == ["cross · 2 seeds", "full · 1 of 2 seeds"]
    (cross,) = client.search_runs(
        [parent.info.experiment_id], f"{mine} and tags.`keyseg.label` = 'cross'"
    )
    metrics = cross.data.metrics
    assert metrics[NAME] == pytest.approx(0.45)
    assert metrics["giou_sd.test.teacher_forced"] == pytest.approx(math.sqrt(0.005))
    half = 12.706204736 * math.sqrt(0.005) / math.sqrt(2)  # Student's t of one degree of freedom
    assert metrics["giou_low.test.teacher_forced"] == pytest.approx(0.45 - half)
    assert metrics["giou_high.test.teacher_forced"] == pytest.approx(0.45 + half)
    curve = client.get_metric_history(cross.info.run_id, "val/giou")
    assert [(p.step, p.value) for p in curve] == [
        (1, pytest.approx(0.225)),
        (2, pytest.approx(0.45)),
    ]
    assert (metrics["val/giou_min"], metrics["val/giou_max"]) == (0.4, 0.5)
    assert len(cross.data.tags["keyseg.cell_runs"].split()) == 2
    assert "#/experiments/" in cross.data.tags["mlflow.note.content"]


def test_one_seed_has_a_run_of_its_variant_too(client, sweep, parent):
    other = client.create_run(parent.info.experiment_id).info.run_id
    first = scores.cells(sweep, sweep_directory.read(sweep))[0]
    variant_runs.sync(client, sweep, other, [first])
    (made,) = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{other}'"
    )
    assert made.info.run_name == "cross · 1 seed"
    assert made.data.metrics[NAME] == 0.4
    assert made.data.metrics["val/giou"] == 0.4
    spread = ("_sd", "_low", "_high", "_min", "_max")
    assert not [name for name in made.data.metrics if any(end in name for end in spread)]
    assert "One seed: its numbers" in made.data.tags["mlflow.note.content"]
    assert made.data.tags["keyseg.kind"] == "variant"


def test_variants_are_made_once_and_anew_for_other_cells(client, sweep, parent, report):
    wanted = "tags.`keyseg.kind` = 'variant'"
    ids = {r.info.run_id for r in client.search_runs([parent.info.experiment_id], wanted)}
    parent_run.finish(sweep, report)
    again = {r.info.run_id for r in client.search_runs([parent.info.experiment_id], wanted)}
    assert again == ids


def test_searches_find_cells_by_params_metrics_and_data(client, parent):
    assert found(client, parent, f"metrics.`{NAME}` > 0.45 and tags.`keyseg.kind` = 'cell'") == [
        "cross · seed 1",
        "full · seed 0",
    ]
    assert len(found(client, parent, "params.`fusion.name` = 'cross'")) == 2
    assert len(found(client, parent, "dataset.name = 'scenes/train'")) == 4
    assert len(found(client, parent, "dataset.digest = 'd1' and dataset.context = 'train'")) == 4
    assert found(client, parent, "dataset.digest = 'd2'") == []
    assert found(client, parent, "metrics.`keyword_accuracy.test.teacher_forced` < 1") == []


def test_a_cell_says_where_it_is_from_and_what_it_saw(client, sweep, parent):
    run = client.get_run(RunDirectory(sweep / "cross0").info["mlflow_run_id"])
    tags = run.data.tags
    assert tags["mlflow.user"] == "ada"
    assert tags["mlflow.source.name"] == "run.py"
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert tags["mlflow.source.git.branch"] == "main"
    assert tags["mlflow.source.git.repoURL"] == "https://host/keyseg.git"
    (dataset,) = run.inputs.dataset_inputs
    assert json.loads(dataset.dataset.profile) == {"expressions": 30, "images": 6}
    assert run.data.metrics["minutes"] == 16.7
    assert "weights/gradient/fusion" in run.data.metrics
    paths = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "run.json", "overlays", "confusion"} <= paths
    pictures = [a.path for a in client.list_artifacts(run.info.run_id, "overlays")]
    assert len(pictures) == 3
    assert pictures[0].startswith("overlays/0.000-the-left-thing-0")
    table = client.download_artifacts(run.info.run_id, "confusion/teacher_forced.csv")
    rows = Path(table).read_text().splitlines()
    assert rows[1:] == ["keyword right,0,1", "keyword wrong,2,0"]


def test_views_of_the_list_of_runs(client, parent):
    tags = client.get_experiment(parent.info.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.experiment.primaryMetric.name"] == NAME
    cells = json.loads(tags[f"mlflow.sharedViewState.{pages.CELLS}"])
    assert cells["orderByKey"] == f"metrics.`{NAME}`"
    assert cells["selectedColumns"] == [
        "tags.`keyseg.state`",
        f"metrics.`{NAME}`",
        "metrics.`ciou.test.teacher_forced`",
        "metrics.`keyword_accuracy.test.teacher_forced`",
        "metrics.`minutes`",
        "tags.`keyseg.label`",
        "params.`seed`",
    ]
    # Of a window of 1,400 pixels names and dates end at 635, MLflow's assistant begins at 1,010.
    assert sum(cells["columnWidths"][name] for name in cells["selectedColumns"][:5]) <= 375
    assert set(cells["columnWidths"]) == set(cells["selectedColumns"])
    assert found(client, parent, cells["searchFilter"]) == [
        "cross · seed 0",
        "cross · seed 1",
        "full · seed 0",
        "full · seed 1",
    ]
    assert pages.view(parent.info.experiment_id) in tags["mlflow.note.content"]


def test_what_others_wrote_of_an_experiment_stays(client, sweep, parent):
    client.set_experiment_tag(parent.info.experiment_id, "mlflow.note.content", "ours, not yours")
    parent_run.finish(sweep, None)
    tags = client.get_experiment(parent.info.experiment_id).tags
    assert tags["mlflow.note.content"] == "ours, not yours"


def test_a_description_fits(tmp_path, report):
    folder = tmp_path / "report"
    shutil.copytree(report, folder)
    long = REPORT.replace("A rule.\n", "- a verdict\n" * 2000)
    (folder / "report.md").write_text(long)
    answer = ReportWords.read(folder)
    places = {"experiment_id": "1", "parent": "p", "metric": GIOU, "variants": False}
    note = of_sweep({"cells": []}, [], answer, **places)
    assert "[variants]" not in note
    assert len(note) <= LONGEST_TAG
    assert note.endswith("- a verdict\n…")
    assert ReportWords.read(tmp_path / "none") == ReportWords()


def test_one_seed_has_no_spread():
    one = scores.spread([0.5])
    assert one.mean == 0.5
    assert math.isnan(one.sd)
    assert math.isnan(one.low)


def test_charts_of_losses_and_val_come_first():
    names = [
        "train/loss",
        "val/giou",
        "weights/entropy/fusion.cross",
        "weights/gradient/fusion",
        "weights/of a package/x",
    ]
    rows = ["train/loss", "val/giou", "entropy/fusion.cross", "gradient/fusion", "of a package/x"]
    named = list(map(name_of, rows))
    assert named == sorted(named) == names
    assert name_of("test/generated/precision@0.5") == "precision_at_0.5.test.generated"
    assert param_name("data/x@1") == "data/x_at_1"
