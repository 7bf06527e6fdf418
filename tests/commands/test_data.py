import numpy as np
import pytest
from PIL import Image

from keyseg import cli
from keyseg.commands.data import print_table
from keyseg.data.check import Result, SplitCounts
from keyseg.data.files import IMAGE, UNANNOTATED, DataError
from keyseg.metrics import Collisions

COUNTS = "{train: 6, val: 3, test: 3}"


@pytest.fixture
def keyseg(scenes_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def run(command, *options):
        where = (f"data.root={scenes_folder}", f"data.prepare.refer={COUNTS}")
        with pytest.raises(SystemExit) as caught:
            cli.main(["data", command, "scenes", *where, f"data.prepare.reason={COUNTS}", *options])
        return caught.value.code

    return run


def test_check(keyseg, capsys):
    assert keyseg("check") == 0
    out = capsys.readouterr().out
    assert "images that train shares: 0 of val, 0 of test" in out
    assert "reasoning" in out
    assert "none: published, no target, no shapes, empty masks, missing images" in " ".join(
        out.split()
    )
    assert "…" not in out
    assert "problem" not in out


def test_check_with_sub_tokens(keyseg, capsys, llava_folder):
    assert keyseg("check", "--tokenizer", str(llava_folder)) == 0
    capsys.readouterr()
    assert keyseg("check", "--tokenizer", "/no/such") == 2
    assert "--tokenizer /no/such: cannot be loaded" in capsys.readouterr().err


def test_a_tokenizer_on_the_hub_is_read_from_the_cache_or_not_at_all(
    keyseg, capsys, cached, llava_folder
):
    cached("lab/cached", llava_folder.glob("token*"))
    assert keyseg("check", "--tokenizer", "keyseg-no/such-tokenizer") == 2
    error = capsys.readouterr().err
    assert "hf download keyseg-no/such-tokenizer --include '*token*' config.json" in error
    assert keyseg("check", "--tokenizer", "lab/cached") == 0


def test_no_header_is_cut_at_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    row = SplitCounts(
        split="train",
        source="short_location",
        source_split="train",
        targets=42226,
        published=42404,
        images=16994,
        expressions=120191,
        no_target=12,
        shapeless=["a.jpg"],
        empty=["b.jpg", "c.jpg"],
        keywords=Collisions(1, 1, 1, 1),
        errors=[DataError("x", kind) for kind in (IMAGE, UNANNOTATED, "damaged")],
    )
    print_table("refcoco", Result([row], {}))
    out = capsys.readouterr().out
    assert "…" not in out
    for word in ("published", "annotation", "keywords", "majority", "42404", "100%"):
        assert word in out


def test_check_of_a_data_set_with_a_hole(keyseg, capsys, scenes_folder):
    picture = next((scenes_folder / "reason_seg/ReasonSeg/test").glob("*.jpg"))
    aside = picture.with_suffix(".aside")
    picture.rename(aside)
    try:
        assert keyseg("check") == 1
    finally:
        aside.rename(picture)
    assert f"problem: reasoning test: {picture} is missing" in capsys.readouterr().out


def test_check_of_nothing_there(tmp_path, capsys):
    for command in ("check", "show"):
        with pytest.raises(SystemExit) as caught:
            cli.main(["data", command, "refcocog", f"data.root={tmp_path}"])
        assert caught.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith("error: data set 'refcocog' is missing")
        assert error.count("\n") == 1


def test_check_of_no_such_data(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "check", "refcocc"])
    assert caught.value.code == 2
    assert "Did you mean 'refcoco'?" in capsys.readouterr().err


def test_overrides_may_follow_options(keyseg, capsys, tmp_path):
    out = tmp_path / "sheet.png"
    assert keyseg("show", "--n", "1", "data.keyword=nothing", "--out", str(out)) == 1
    assert "data.keyword=nothing: must be one of category" in capsys.readouterr().err
    assert keyseg("show", "--n", "1", "nothing") == 2
    assert "unrecognized arguments: nothing" in capsys.readouterr().err


def test_show(keyseg, tmp_path, capsys):
    out = tmp_path / "new" / "sheet.png"
    for _ in range(2):
        assert keyseg("show", "--n", "5", "--out", str(out)) == 0
    assert capsys.readouterr().out.split() == [str(out)] * 2
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[1] > pixels.shape[0], "four columns, two rows"
    blue = (pixels[..., 2].astype(int) - pixels[..., 0]) > 60
    assert blue.mean() > 0.001, "targets are edged in blue"
    assert keyseg("show", "--n", "0") == 2
