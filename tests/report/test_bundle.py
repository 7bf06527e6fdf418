"""A sweep in one archive: it is derived again, what was changed is named, nothing leads out."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from keyseg import cli
from keyseg.report import bundle
from keyseg.report.stats import looks as stats
from keyseg.runs import archive, declaration, looks
from keyseg.runs.archive import ArchiveError
from keyseg.runs.run_directory import RunDirectory


@pytest.fixture(scope="module")
def packed(make: Any, tmp_path_factory: pytest.TempPathFactory, compose_run: Any) -> Path:
    """The archive of a sweep of two variants, three seeds, and one look."""
    root = tmp_path_factory.mktemp("store")
    folder: Path = make(root, ("seg_only", "full"), seeds=range(3), images=8)
    content = json.loads((folder / "sweep.json").read_text())
    content["looks"] = {"seeds": [0, 1, 2, 3], "at": [3, 4], "family": "obrien_fleming"}
    for cell in content["cells"]:
        old, config = folder / cell["signature"], compose_run(*cell["overrides"])
        cell["signature"] = bundle.signature(config)
        old.rename(folder / cell["signature"])
        RunDirectory(folder / cell["signature"]).freeze(config)
    content["declared"] = declaration.first({}, content, 1.7e9)
    (folder / "sweep.json").write_text(json.dumps(content))
    looks.take(folder, 1, stats.decide)
    bundle.bundle(folder, root / "t.zip")
    return root / "t.zip"


def repacked(packed: Path, folder: Path, change: Any) -> Path:
    """The archive with changed files, its list of hashes as if nothing had been done to them."""
    with zipfile.ZipFile(packed) as old:
        old.extractall(folder / "x")
    change(folder / "x")
    listed = json.loads((folder / "x" / archive.LIST_FILE).read_text())
    files = {name: folder / "x" / name for name in listed.pop("files")}
    archive.pack(folder / "changed.zip", {n: f for n, f in files.items() if f.exists()}, listed)
    return folder / "changed.zip"


def test_every_number_is_derived_again(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", str(packed)])
    said = capsys.readouterr().out
    assert end.value.code == 0, said
    assert "DIFFERS" not in said
    for line in (
        "6 configs have the signatures of their runs",
        "tables/contrasts.csv:",
        "entries derived again from the samples",
        "6 summaries are those of their samples",
        "1 looks decided what their seeds and boundary say",
        "declared 2023-11-14 22:13 UTC, digest",
    ):
        assert line in said


def in_run(name: str) -> Any:
    return lambda folder: sorted(folder.glob(f"runs/*/{name}"))[0]


def better_samples(folder: Path) -> None:
    run = RunDirectory(in_run("samples.parquet")(folder).parent)
    run.write_samples(run.samples().assign(iou=0.99))


def edited(name: str, old: str, new: str) -> Any:
    def change(folder: Path) -> None:
        file = folder / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return change


def rounded_up(folder: Path) -> None:
    file = folder / "tables" / "results.csv"
    head, first, *rest = file.read_text().splitlines()
    parts = first.split(",")
    place = head.split(",").index("giou")
    parts[place] = f"{float(parts[place]) + 0.001:.6g}"
    file.write_text("\n".join([head, ",".join(parts), *rest]) + "\n")


def test_what_was_changed_is_named(packed: Path, tmp_path: Path) -> None:
    """With a list of hashes that fits it: only what is derived tells."""
    changes = (
        better_samples,
        rounded_up,
        edited("looks.json", '"word": "', '"word": "not '),
        edited("sweep.json", "Does fusing", "Will fusing"),
        edited("tables/contrasts.csv", "seg_only", "cross"),
        lambda folder: (folder / "tables" / "slices.csv").unlink(),
        lambda folder: in_run("config.yaml")(folder).write_text("seed: 5"),
    )

    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    found = "\n".join(bundle.verify(repacked(packed, tmp_path, change)).differs)
    for line in (
        "look 1, it was taken of other samples than those in the archive",
        "tables/results.csv, line 2, giou:",
        "look 1, full − seg_only: word is not ",
        "what was declared does not have the digest it states",
        "tables/contrasts.csv, line 2, contrast: full − cross stated, full − seg_only derived",
        "tables/slices.csv is not there",
        "its config",
        "Summary and samples disagree",
    ):
        assert line in found, found


def test_files_that_were_exchanged_are_named(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(tmp_path / "y.zip", "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "tables/slices.csv":
                content = content[:-1] + b" "
            if entry.filename != "tables/results.csv":
                new.writestr(entry.filename, content)
        new.writestr("more.txt", "x")
    listed = archive.unpack(tmp_path / "y.zip", tmp_path / "to")["files"]
    assert archive.differences(tmp_path / "to", listed) == [
        "tables/results.csv: listed, not there",
        "more.txt: there, not listed",
        "tables/slices.csv: not the file that was listed",
    ]


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "/out.txt", "a/../../out", "a\\..\\b", "a//b", "C:x", "a/", "./a", "\x1b"],
)
def test_no_name_leads_out(name: str, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("a")
    entry.filename = name
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        made.writestr(entry, "text")
    with pytest.raises(ArchiveError, match="no name that is unpacked"):
        archive.unpack(tmp_path / "x.zip", tmp_path / "to")
    assert [file.name for file in tmp_path.iterdir()] == ["x.zip"]


def test_links_bombs_and_twins_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as made:
        made.writestr(link, "/etc")
    with pytest.raises(ArchiveError, match="a is no plain file"):
        archive.unpack(tmp_path / "link.zip", tmp_path / "1")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", bytes(50_000_000))
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    with pytest.raises(ArchiveError, match=r"more than may be unpacked \(--gib\): zeros"):
        archive.unpack(tmp_path / "bomb.zip", tmp_path / "2", largest=1_000_000)
    assert sum(f.stat().st_size for f in (tmp_path / "2").rglob("*")) <= 1_000_000
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as made:
        made.writestr("a", "1")
        made.writestr("A", "2")
    with pytest.raises(ArchiveError, match="holds A twice"):
        archive.unpack(tmp_path / "twice.zip", tmp_path / "3")
    (tmp_path / "no.zip").write_bytes(b"PK no archive")
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        archive.unpack(tmp_path / "no.zip", tmp_path / "4")


def test_a_cell_that_names_a_place_elsewhere_is_refused(packed: Path, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        content = json.loads((folder / "sweep.json").read_text())
        content["cells"][0]["signature"] = "../../outside"
        (folder / "sweep.json").write_text(json.dumps(content))

    with pytest.raises(ArchiveError, match="which is no signature"):
        bundle.verify(repacked(packed, tmp_path, change))


def test_an_archive_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive.pack(tmp_path / "x.zip", {}, {})
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", str(tmp_path / "x.zip")])
    assert end.value.code == 2
    assert "holds no sweep that can be read" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    with pytest.raises(SystemExit):
        cli.main(["verify", str(tmp_path / "none.zip")])
    assert "there is no such file" in capsys.readouterr().err
