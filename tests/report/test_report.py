"""A whole report from a small store: golden tables, and a page that stands alone."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keyseg.config import RunConfig
from keyseg.report import ReportFiles, build, write_overview
from keyseg.report.figures import drawing, test_scores
from keyseg.report.figures.style import figure_style, save
from keyseg.report.gallery import examples, overlay
from keyseg.report.page.checks import check
from keyseg.report.stats import scores
from keyseg.report.store import load
from keyseg.report.tables import results, runs
from keyseg.runs import code
from keyseg.runs.run_directory import RunDirectory

GOLDEN = Path(__file__).parent / "golden"
UPDATE = "KEYSEG_UPDATE_GOLDEN"
HOLES = {("cross", 1): "failed", ("full", 2): "missing"}


@pytest.fixture(scope="module")
def seeds(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, ReportFiles]:
    """Three variants, three seeds, a failed and a missing cell, a NaN in every curve."""
    root = tmp_path_factory.mktemp("seeds")
    sweep = request.getfixturevalue("make")(root, seeds=(0, 1, 2), images=20, status=HOLES)
    return sweep, build(sweep, root / "report")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a build; these tests look at the rest."""
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})


class Resources(HTMLParser):
    """Everything that a page would load, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.void = {"meta", "link", "img", "br"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "poster")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["results", "contrasts", "slices", "manifest"])
def test_golden_tables(seeds: tuple[Path, ReportFiles], name: str) -> None:
    """Set KEYSEG_UPDATE_GOLDEN=1 to write them anew, and read the difference."""
    written = next(f for f in seeds[1].tables if f.name == f"{name}.csv")
    golden = GOLDEN / f"{name}.csv"
    found = pd.read_csv(written)
    if name == "slices":
        shown = found["slice"].eq("style") & found["metric"].isin(["giou", "keyword_accuracy"])
        found = found[shown].reset_index(drop=True)
    if os.environ.get(UPDATE):
        found.to_csv(golden, index=False, lineterminator="\n")
    expected = pd.read_csv(golden)
    pd.testing.assert_frame_equal(found, expected, rtol=2e-5, check_dtype=False)


def test_nothing_in_print_is_written_beside_other_data(seeds: tuple[Path, ReportFiles]) -> None:
    written = next(f for f in seeds[1].tables if f.name == "published.csv")
    assert pd.read_csv(written).empty


def test_values_are_those_of_the_samples(seeds: tuple[Path, ReportFiles]) -> None:
    sweep, files = seeds
    table = pd.read_csv(next(f for f in files.tables if f.name == "results.csv"))
    row = table[(table["variant"] == "cross") & (table["protocol"] == "generated")].iloc[0]
    runs = [RunDirectory(sweep / f"01{seed:02d}5e9a7c31") for seed in (0, 2)]
    frames = [run.samples().query("protocol == 'generated'") for run in runs]
    giou = [float(f["iou"].mean()) for f in frames]
    ciou = [float(f["intersection"].sum() / f["union"].sum()) for f in frames]
    assert row["giou"] == pytest.approx(np.mean(giou), rel=1e-5)
    assert row["giou_sd"] == pytest.approx(np.std(giou, ddof=1), rel=1e-4)
    assert row["ciou"] == pytest.approx(np.mean(ciou), rel=1e-5)
    assert row["giou_low"] < row["giou"] < row["giou_high"]
    assert (row["seeds"], row["examples"], row["images"]) == (2, 40, 20)
    assert row["hole"] == "2 of 3 seeds, failed"


def test_the_page_needs_nothing_else(seeds: tuple[Path, ReportFiles]) -> None:
    page = seeds[1].html.read_text(encoding="utf-8")
    parser = Resources()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.loaded) > 50
    beside = [r for r in parser.loaded if not r.startswith(("data:", "#"))]
    data = [f.name for f in seeds[1].figures if f.suffix == ".csv"]
    assert sorted(beside) == sorted(f"figures/{name}" for name in data)
    assert all((seeds[1].html.parent / name).exists() for name in beside)
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)", page)
    assert "<script src" not in page


def test_the_page_says_what_a_reader_must_know(seeds: tuple[Path, ReportFiles]) -> None:
    page = seeds[1].html.read_text(encoding="utf-8")
    for text in (
        "Does fusing KEY into SEG help, and is it the residual?",
        "python run.py -m fusion=seg_only,cross,full",
        "Failed: cross, seed 1.",
        "RuntimeError: loss is nan at step 61",
        "01015e9a7c31/log.txt",
        "Missing: full, seed 2.",
        "2 of 3 seeds, failed",
        "teacher-forced (headline), generated",
        "40 test examples on 20 images",
        "frozen on purpose",
        "a51c0ffee123",
        "node-7",
        "No two keywords begin alike.",
        "data scenes, splits test, backbone tiny.",
        "GPU-hours",
    ):
        assert text in page, text
    for kind in (
        "Best",
        "Worst",
        "Most disputed",
        "Most disputed between seeds",
        "Drawn at random",
        "Largest wins: cross − seg_only",
        "Largest losses: full − seg_only",
        "Failure: keyword right, mask wrong",
        "Failure: empty mask",
        "Failure: several objects",
    ):
        assert f"<h3>{kind} " in page, kind
    for key in ("style", "size", "length", "kind"):
        assert f'data-key="{key}"' in page
    assert 'data-style="reasoning"' in page
    assert "One seed." not in page
    assert "in print" not in page  # made of no public data


def test_the_first_screen_answers(seeds: tuple[Path, ReportFiles]) -> None:
    page = seeds[1].html.read_text(encoding="utf-8")
    screen = page[page.index("<main>") : page.index("</header>")]
    for text in (
        "Does fusing KEY into SEG help, and is it the residual?",
        "On gIoU: both contrasts are inconclusive.",
        "7 of 9",
        "at a plateau: 3 of 3 variants",
        "0.48 GPU-hours",
        'id="figure-forest"',
    ):
        assert text in screen, text
    assert page.count('id="figure-forest"') == 1
    assert page.index("Before you read the numbers") > page.index("</header>")
    assert '<span class="verdict interim">' in screen  # a cell is missing
    leads = re.findall(r'<a href="#([^"]+)"', page[page.index("<nav") : page.index("</nav>")])
    assert leads[0] == "answer"
    assert all(f'id="{name}"' in page for name in leads)
    told = json.loads((seeds[1].html.parent / "answer.json").read_text(encoding="utf-8"))
    assert (told["state"], told["done"], told["cells"]) == ("interim", 7, 9)


def test_markdown_tex_and_figures(seeds: tuple[Path, ReportFiles]) -> None:
    files = seeds[1]
    text = files.markdown.read_text(encoding="utf-8")
    assert text.startswith("# fusion: Does fusing KEY")
    assert "- Seeds a variant: 2 to 3\n- Sweep: fusion\n" in text
    assert "- Seed numbers: 0, 1, 2\n" in text
    rows = [line for line in text.splitlines() if line.startswith("| seg\\_only |")]
    assert len({line.count("|") - line.count("\\|") for line in rows[1:3]}) == 1  # by protocol
    for figure in re.findall(r"\((figures/[^)]+)\)", text):
        assert (files.markdown.parent / figure).exists()
    assert {f.name for f in files.figures} == {
        f"{name}.{kind}"
        for name in (
            "forest",
            "paired",
            "cost",
            "slices",
            "learning_curves",
            "precision",
            "keyword",
        )
        for kind in ("png", "svg", "pdf", "csv")
    }
    for figure in files.figures:
        assert figure.stat().st_size > (5000 if figure.suffix != ".csv" else 100)
    tex = {f.stem: f.read_text() for f in files.tables if f.match("tables/*.tex")}
    assert {"results_masks", "results_words", "results_cost", "contrasts", "slices_style"} <= set(
        tex
    )
    for table in tex.values():
        assert table.count("\\toprule") == table.count("\\bottomrule") == 1
        assert table.count("{") - table.count("\\{") == table.count("}") - table.count("\\}")
    assert "seg\\_only" in tex["results_masks"]
    width = tex["results_masks"].split("\\begin{tabular}{")[1].split("}")[0]
    body = [x for x in tex["results_masks"].splitlines() if x.startswith("seg\\_only")]
    assert all(line.count(" & ") == len(width) - 1 for line in body)


def test_the_data_of_a_figure_are_what_it_shows(seeds: tuple[Path, ReportFiles]) -> None:
    frames = {f.stem: pd.read_csv(f) for f in seeds[1].figures if f.suffix == ".csv"}
    results = pd.read_csv(next(f for f in seeds[1].tables if f.name == "results.csv"))
    (row,) = results.query("variant == 'full' and protocol == 'teacher_forced'").to_dict("records")
    precision = frames["precision"].query("protocol == 'teacher_forced' and variant == 'full'")
    above = precision.set_index("iou_above")["mean"]
    assert above[0.5] == pytest.approx(100 * row["precision@0.5"], rel=1e-4)
    cost = frames["cost"].set_index("label").loc["full"]
    assert cost["value"] == pytest.approx(100 * row["giou"], rel=1e-4)
    forest = frames["forest"]
    assert list(forest["metric"].unique()) == ["giou", "ciou"]
    assert len(forest) == 4
    contrasts = pd.read_csv(next(f for f in seeds[1].tables if f.name == "contrasts.csv"))
    same = contrasts.query("protocol == 'teacher_forced' and metric in ['giou', 'ciou']")
    for column in ("difference", "low", "high", "low_images", "high_seeds"):
        np.testing.assert_allclose(forest[column], 100 * same[column], rtol=1e-4)
    np.testing.assert_allclose(forest["holm_both"], same["holm_both"], rtol=1e-4)
    curves = frames["learning_curves"].query("name == 'val/giou'")
    assert (curves["low"] <= curves["mean"]).all()
    assert curves["mean"].max() > 1  # percent, as its axis
    assert set(curves["variant"]) == {"seg_only", "cross", "full"}
    words = frames["keyword"].set_index("variant")
    assert words.iloc[:, 5:].sum(axis=1).to_list() == pytest.approx([100, 100, 100], rel=1e-5)
    assert len(frames["paired"]) == 80  # 40 examples, two contrasts
    assert set(frames["slices"]["slice"]) == {"style", "size", "length"}
    in_slices = frames["slices"].query("label == 'full' and slice == 'style'")
    assert in_slices["value"].max() > 1


def test_only_what_is_asked_for_is_made(
    store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text alone draws no figure and no gallery, and speaks of none."""
    monkeypatch.setattr(drawing, "draw_all", lambda *_: pytest.fail("drawn"))
    monkeypatch.setattr(examples, "build", lambda *_: pytest.fail("a gallery"))
    files = build(store(images=4), tmp_path / "report", formats=("md",))
    assert [f.name for f in (tmp_path / "report").iterdir() if f.is_file()] == ["report.md"]
    assert files.html == files.markdown
    assert "figures/" not in files.markdown.read_text(encoding="utf-8")


def test_the_page_of_all_sweeps(seeds: tuple[Path, ReportFiles], tmp_path: Path) -> None:
    assert write_overview(tmp_path) is None
    for name in ("one", "t & o"):
        folder = tmp_path / name
        folder.mkdir()
        told = json.loads((seeds[1].html.parent / "answer.json").read_text(encoding="utf-8"))
        (folder / "answer.json").write_text(json.dumps({**told, "heading": f"<{name}>?"}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "answer.json").write_text("{")
    for _ in range(2):
        assert write_overview(tmp_path) == tmp_path / "index.html"
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "2 reports" in page
    assert '<a href="t%20%26%20o/index.html">&lt;t &amp; o&gt;?</a>' in page
    assert "On gIoU: both contrasts are inconclusive." in page
    (tmp_path / "index.html").write_text("somebody's own")
    assert write_overview(tmp_path) is None


def compiled(folder: Path, out: Path) -> str:
    """What pdflatex says of a folder's report.tex; skips where there is no pdflatex."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex (Debian: texlive-latex-recommended, texlive-fonts-recommended)")
    out.mkdir()
    done = subprocess.run(
        [
            "pdflatex",
            "-interaction=nonstopmode",
            "-halt-on-error",
            f"-output-directory={out}",
            "report.tex",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        env={**os.environ, "max_print_line": "1000"},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (out / "report.pdf").stat().st_size > 50_000
    return done.stdout


def wide(said: str) -> list[float]:
    """By how many points lines stand out of the text."""
    return [float(x) for x in re.findall(r"Overfull \\hbox \(([\d.]+)pt", said)]


def test_the_latex_compiles_as_it_is(seeds: tuple[Path, ReportFiles], tmp_path: Path) -> None:
    folder = seeds[1].html.parent
    said = compiled(folder, tmp_path / "pdf")
    tables = sorted(f.stem for f in (folder / "tables").glob("*.tex"))
    assert all(f"tables/{name}.tex" in said for name in tables)
    assert all(width < 2 for width in wide(said))
    assert "Float too large" not in said


@pytest.mark.usefixtures("no_figures")
def test_one_seed_is_called_one_seed(store: Callable[..., Path], tmp_path: Path) -> None:
    page = build(store(images=8), tmp_path / "report").html.read_text()
    assert "One seed." in page
    assert "one seed cannot show that a variant is better" in page.replace("\n", " ")
    assert "One seed cannot show whether the variant or the training run" in page


def test_twelve_variants_with_long_names(store: Callable[..., Path], tmp_path: Path) -> None:
    labels = [f"full · loss.keyword.weight={i} & <b>$x_{i}$</b> | a long name" for i in range(12)]
    files = build(store(labels, images=6), tmp_path / "report")
    page = files.html.read_text()
    assert "<b>$x_" not in page
    assert "&lt;b&gt;$x_11$&lt;/b&gt;" in page
    tex = next(f for f in files.tables if f.name == "results_masks.tex").read_text()
    assert r"\& \textless{}b\textgreater{}\$x\_11\$" in tex
    assert all(width < 2 for width in wide(compiled(files.html.parent, tmp_path / "pdf")))
    for figure in files.figures:
        if figure.suffix == ".png":
            edge = np.asarray(Image.open(figure).convert("L"))
            sides = (edge[:3], edge[-3:], edge[:, :3], edge[:, -3:])
            assert all(side.min() == 255 for side in sides), f"{figure.name} is cut off"


def test_a_sweep_without_any_result(store: Callable[..., Path], tmp_path: Path) -> None:
    states = {("seg_only", 0): "missing", ("cross", 0): "failed", ("full", 0): "queued"}
    files = build(store(images=4, status=states), tmp_path / "report")
    page = files.html.read_text()
    assert "0 of 3 cells finished" in page
    assert "Not finished: full, seed 0." in page
    table = pd.read_csv(next(f for f in files.tables if f.name == "results.csv"))
    assert list(table["hole"]) == ["missing", "failed", "stopped"]
    assert table["giou"].isna().all()


@pytest.mark.usefixtures("no_figures")
def test_broken_files_are_holes(store: Callable[..., Path], tmp_path: Path) -> None:
    sweep = store(images=8)
    runs = sorted(p for p in sweep.iterdir() if p.is_dir())
    (runs[0] / "samples.parquet").write_bytes(b"PAR1 no")
    run = RunDirectory(runs[2])
    run.write_samples(run.samples().drop(columns=["top_words", "mask_rle"]))
    (runs[1] / "metrics.jsonl").write_text("not json\n{}\n")
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    page = build(sweep, tmp_path / "report").html.read_text()
    assert "samples.parquet cannot be read" in page
    assert "metrics.jsonl cannot be read" in page
    assert "image not found" in page
    assert "no samples" in page
    assert "no mask stored" in page


@pytest.mark.usefixtures("no_figures")
def test_a_mask_that_no_memory_holds_is_a_hole(store: Callable[..., Path], tmp_path: Path) -> None:
    sweep = store(images=8)
    run = RunDirectory(next(p for p in sorted(sweep.iterdir()) if p.is_dir()))
    samples = run.samples()
    samples.loc[3, ["height", "width"]] = 10**6
    run.write_samples(samples)
    page = build(sweep, tmp_path / "report").html.read_text()
    name = html.escape(str(samples["id"][3]))
    assert f"{name}: 1000000 x 1000000 is 1,000,000 megapixels" in page


def test_a_damaged_mask_is_none() -> None:
    assert overlay.decode("0e0", 5, 4) is None
    assert overlay.decode("0d0", 10**6, 10**6) is None
    assert overlay.load(Path("nowhere.png"), 10**6, 10**6)[0].shape == (320, 320, 3)


@pytest.mark.usefixtures("no_figures")
def test_runs_that_do_not_compare_are_flagged(store: Callable[..., Path], tmp_path: Path) -> None:
    sweep = store(images=6)
    runs = [RunDirectory(p) for p in sorted(sweep.iterdir()) if p.is_dir()]
    runs[0].update(git={"commit": "feedbeef00000000", "dirty": True}, data_fingerprint="other")
    runs[1].update(protocol={"splits": "val"}, status="running")
    runs[2].update(summary={"teacher_forced": {"giou": 0.99}})
    page = build(sweep, tmp_path / "report").html.read_text()
    for title in (
        "Mixed commits.",
        "Uncommitted changes.",
        "Mixed data.",
        "Not finished: cross, seed 0.",
        "Summary and samples disagree: full, seed 0.",
    ):
        assert title in page, title
    assert "Status: stopped." in page
    assert "Mixed protocols." not in page


def test_weights_that_a_factor_asks_for_are_no_mix(store: Callable[..., Path]) -> None:
    """`mask=a,b` starts from two sets of weights; two runs of one option must not."""
    loaded = load(store(images=4))
    first, *others = loaded.variants
    one = first.cells[0]
    for name, factor in (("weights", "mask"), ("data", "data")):
        other = {**one.info, f"{name}_fingerprint": "other"}
        for asked, expected in (({}, True), ({factor: "small"}, False), ({"optim.steps": 3}, True)):
            cell = replace(one, info=other, factors={**one.factors, **asked})
            variant = replace(first, cells=(cell, *first.cells[1:]))
            mixed = replace(loaded, variants=(variant, *others))
            titles = {notice.title for notice in check(mixed)}
            assert (f"Mixed {name}." in titles) == expected, (name, asked)


def test_code_that_is_not_the_same_for_all_runs_is_named(store: Callable[..., Path]) -> None:
    sweep = store(images=4)
    runs = [RunDirectory(p) for p in sorted(sweep.iterdir()) if p.is_dir()]
    today = code.of(("keyseg.model.fusion.Full",))
    for run in runs:
        (run.path / code.CODE_FILE).write_text(json.dumps(today.parts))
        run.update(code={"fingerprint": today.fingerprint, "targets": today.targets})
    assert not {"Mixed code.", "Stale."} & {n.title for n in check(load(sweep))}
    other = {**today.parts, "keyseg/train/losses.py: dice_loss": "another"}
    (runs[0].path / code.CODE_FILE).write_text(json.dumps(other))
    runs[0].update(code={"fingerprint": "another", "targets": today.targets})
    notices = {n.title: n for n in check(load(sweep))}
    (line,) = notices["Mixed code."].detail.splitlines()
    assert line.startswith("keyseg/train/losses.py: dice_loss: ")
    assert notices["Stale."].detail.startswith("keyseg/train/losses.py: dice_loss: ")


def test_a_run_that_went_on_under_other_code_is_named(store: Callable[..., Path]) -> None:
    sweep = store(images=4)
    run = next(RunDirectory(p) for p in sorted(sweep.iterdir()) if p.is_dir())
    attempts = [{"code": "a", "superseded": True}, {"code": "b"}]
    run.update(attempts=attempts)
    assert "Mixed code." not in [n.title for n in check(load(sweep))]
    run.update(attempts=[{"code": "a"}, {"code": "b"}])
    assert "Mixed code." in [n.title for n in check(load(sweep))]


def test_mixed_protocols_are_named_unless_they_are_what_is_swept(
    store: Callable[..., Path],
) -> None:
    sweep = store(images=4)
    for place, path in enumerate(sorted(p for p in sweep.iterdir() if p.is_dir())):
        order = ("key_first", "seg_first")[place % 2]
        RunDirectory(path).update(protocol={"data": "scenes", "token_order": order})
    found = [n for n in check(load(sweep)) if n.title == "Mixed protocols."]
    assert "token order key_first: seg_only · seed 0, full · seed 0" in found[0].detail
    assert "scenes" not in found[0].detail
    design = json.loads((sweep / "sweep.json").read_text())
    for cell in design["cells"]:
        cell["factors"]["model.tokens.order"] = "as swept"
    (sweep / "sweep.json").write_text(json.dumps(design))
    assert "Mixed protocols." not in [n.title for n in check(load(sweep))]


def test_scores_on_the_split_that_chose_the_weights_are_told(
    store: Callable[..., Path], compose_run: Callable[..., RunConfig]
) -> None:
    sweep = store(images=4)
    first, second, third = sorted(p for p in sweep.iterdir() if p.is_dir())
    for path in (first, second, third):
        RunDirectory(path).update(data_fingerprint=path.name)
    RunDirectory(first).freeze(compose_run("data=refcocog_google"))
    RunDirectory(second).freeze(compose_run("data=refcocog"))
    found = [n for n in check(load(sweep)) if n.title == "Selected on the reported split."]
    assert [n.detail for n in found] == ["refcocog_google val: seg_only · seed 0"]
    RunDirectory(first).freeze(compose_run())
    (third / "config.yaml").write_text("no: [config")
    assert "Selected on the reported split." not in [n.title for n in check(load(sweep))]


def test_hours_are_gpus_times_seconds_of_every_attempt(store: Callable[..., Path]) -> None:
    sweep = store(["a", "b"], images=4)
    spent = ({"seconds": 1800.0, "gpus": 1}, {"seconds": 900.0, "gpus": 4, "processes": 4})
    for path in (p for p in sweep.iterdir() if p.is_dir()):
        RunDirectory(path).update(attempts=list(spent), hardware={"gpus": ["H100"] * 4})
    found = load(sweep)
    listed = runs.table(found)
    assert list(listed["hours"]) == [1.5, 1.5]
    assert list(listed["unit"]) == ["GPU", "GPU"]
    cost = results.results(found, scores.scores(found, 0))[-1]
    assert cost.header[4] == "GPU-hours"
    assert cost.lines[0].entries[4].value == "1.5"
    # One more seed of both variants costs both.
    held = scores.contrasts(found, 0)
    assert held["sentence"].str.contains("takes at least 2 more seeds, 6.0 GPU-hours").any()


def test_two_builds_are_the_same(
    seeds: tuple[Path, ReportFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, first = seeds
    with figure_style():
        drawn = test_scores.precision(load(sweep))
        again = save(drawn, tmp_path, "precision", ("png", "svg", "pdf"))
    assert {f.name for f in again} < {f.name for f in first.figures}
    for file in again:
        assert file.read_bytes() == (first.html.parent / "figures" / file.name).read_bytes()
    monkeypatch.setattr(drawing, "draw_all", lambda *_: {})
    first, second = (build(sweep, tmp_path / name) for name in ("a", "b"))
    for left, right in zip(first.tables, second.tables, strict=True):
        assert left.read_bytes() == right.read_bytes(), left.name

    def undated(files: ReportFiles) -> str:
        return re.sub(r"report written [^.]*\.", "", files.html.read_text())

    assert undated(first) == undated(second)


def test_errors_name_file_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"sweep\.json does not exist: give the folder"):
        build(tmp_path, tmp_path / "report")
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        build(tmp_path, tmp_path / "report")


def test_importing_the_report_is_light() -> None:
    code = (
        "import sys, keyseg.report; heavy = {'pandas', 'matplotlib', 'scipy'} & set(sys.modules);"
        "import keyseg.report.assemble;"
        "heavy |= {'torch', 'transformers', 'mlflow'} & set(sys.modules); print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
