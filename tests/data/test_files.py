import pytest

from keyseg.data import files
from keyseg.data.files import (
    DataError,
    check_images,
    parsed,
    parsing_once,
    read_json,
    require,
)

PAGE = "https://example.org/data"


def test_require_shows_where_the_path_ends(tmp_path):
    (tmp_path / "refcoco").mkdir()
    assert require(tmp_path / "refcoco", "data", PAGE) == tmp_path / "refcoco"
    with pytest.raises(DataError) as caught:
        require(tmp_path / "refcoco+" / "instances.json", "annotations", PAGE)
    message = str(caught.value)
    assert str(tmp_path / "refcoco+" / "instances.json") in message
    assert f"{tmp_path} holds refcoco." in message
    assert PAGE in message


def test_require_in_an_empty_and_in_a_crowded_folder(tmp_path):
    with pytest.raises(DataError, match="holds nothing"):
        require(tmp_path / "x", "data", PAGE)
    for i in range(10):
        (tmp_path / f"f{i}").touch()
    with pytest.raises(DataError, match=r"holds f0, .*f7, \.\.\."):
        require(tmp_path / "x", "data", PAGE)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_encodings(tmp_path, encoding):
    file = tmp_path / "a.json"
    file.write_bytes('{"text": ["the café’s door"]}'.encode(encoding))
    assert read_json(file) == {"text": ["the café’s door"]}


@pytest.mark.parametrize("raw", [b"", b"{", b"<html>", b"\x81\xff{"])
def test_broken_json_names_its_file(tmp_path, raw):
    file = tmp_path / "broken.json"
    file.write_bytes(raw)
    with pytest.raises(DataError, match=r"broken\.json is not valid JSON"):
        read_json(file)


def test_missing_images_are_one_error(tmp_path):
    present = tmp_path / "0.jpg"
    present.touch()
    check_images([present, present], PAGE)
    missing = [tmp_path / f"{i}.jpg" for i in range(1, 6)]
    with pytest.raises(DataError, match=r"5 of 6 images .* 1\.jpg, 2\.jpg, 3\.jpg, \.\.\."):
        check_images([present, *missing, *missing], PAGE)
    with pytest.raises(DataError, match=r"1 of 1 images .*gone: a\.jpg\. Public"):
        check_images([tmp_path / "gone" / "a.jpg"], PAGE)


def test_files_of_equal_content_are_parsed_once_and_only_inside(tmp_path):
    a, b, other = (tmp_path / f"{name}.json" for name in "abc")
    a.write_text("[1]")
    b.write_text("[1]")
    other.write_text("[2]")
    assert parsed(read_json, a) is not parsed(read_json, a)
    with parsing_once():
        first = parsed(read_json, a)
        with parsing_once():  # a check that calls a reader of splits
            assert parsed(read_json, b) is first
        assert parsed(read_json, a) is first
        assert parsed(read_json, other) == [2]
        assert parsed(str, a) == str(a)  # another way of reading it
        a.write_text("[3]")  # changed under way
        assert parsed(read_json, a) == [3]
    assert parsed(read_json, b) is not first


def test_of_many_files_the_last_few_stay_in_memory(tmp_path):
    paths = [tmp_path / f"{i}.json" for i in range(files._KEPT + 1)]
    for i, path in enumerate(paths):
        path.write_text(f"[{i}]")
    with parsing_once():
        first, *others = [parsed(read_json, path) for path in paths]
        assert parsed(read_json, paths[-1]) is others[-1]
        assert parsed(read_json, paths[0]) is not first


def test_what_cannot_be_parsed_names_its_own_file(tmp_path):
    """And a file that is not there is for the reader to complain of."""
    with parsing_once():
        for name in ("one.json", "two.json"):
            (tmp_path / name).write_text("{")
            with pytest.raises(DataError, match=name):
                parsed(read_json, tmp_path / name)
        with pytest.raises(FileNotFoundError):
            parsed(read_json, tmp_path / "absent.json")
