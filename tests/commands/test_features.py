"""`keyseg features`: fills the store, finds it filled, mends it, and says so."""

import pytest

from keyseg.cli import main


@pytest.fixture
def call(small_overrides, tmp_path, capsys):
    def make(*arguments):
        overrides = [o for o in small_overrides if not o.startswith(("paths.data", "optim"))]
        with pytest.raises(SystemExit) as ended:
            main(["features", "scenes", *overrides, f"paths.data={tmp_path}", *arguments])
        return ended.value.code, capsys.readouterr()

    return make


def test_filled_once_and_mended(call, tmp_path):
    code, said = call("--split", "val")
    assert code == 0
    assert "6 images: 12 features computed" in said.out
    assert str(tmp_path / "features") in said.out
    code, said = call("--split", "val")
    assert "6 images: 0 features computed" in said.out
    code, said = call()  # train, val and test
    assert "24 images: 36 features computed" in said.out
    file = sorted((tmp_path / "features").rglob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-9])
    assert "0 features computed" in call()[1].out  # looks at names only
    code, said = call("--verify")
    assert code == 0
    assert "24 images: 1 features computed, 1 of them damaged before" in said.out


def test_all_that_is_missing_is_named_at_once(call, tmp_path):
    weights = ("model.sam=/nowhere", "model.llava=/none")
    code, said = call(*weights, f"data.root={tmp_path}/x", "data.prepare=null")
    assert code == 2
    for name in ("model.sam=/nowhere", "model.llava=/none", f"{tmp_path}/x"):
        assert name in said.err
    assert said.err.count("error: ") == 2


def test_what_cannot_be_stored_is_an_error(call, tmp_path):
    code, said = call("runtime.features=false")
    assert (code, "runtime.features=false: no features are stored" in said.err) == (2, True)
    code, said = call("runtime.features_gib=0.00001", "--split", "val")
    assert code == 1
    assert "features_gib" in said.err
    code, said = call("model.sam=/nowhere")
    assert code == 2
    assert "/nowhere" in said.err
    code, said = call("--split", "vall")
    assert code == 1
    assert "vall" in said.err
