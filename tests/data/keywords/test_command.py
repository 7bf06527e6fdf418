"""`keyseg keywords extract | review` from end to end, on a data set in the public form."""

import csv
import json
import re
import shutil

import pytest

from keyseg import cli
from keyseg.data.keywords import file
from keyseg.data.keywords.journal import Journal

QUERIES = {
    "a": "what barks ?",
    "b": "what purrs ?",
    "c": "what sings ?",
    "d": "where is the crew ?",
    "e": "what part of the dog barks ?",
}


@pytest.fixture
def keywords(reason_data, t5_folder, tmp_path):
    """Runs the command on reason_seg; returns the exit code."""
    path = tmp_path / "made" / "keyword_outputs.json"

    def run(action, *options, model=t5_folder):
        what = ["keywords", action, "reason_seg", f"data.root={reason_data}", "--file", str(path)]
        if action == "extract":
            what += ["--model", str(model), "--device", "cpu"]
        with pytest.raises(SystemExit) as caught:
            cli.main([*what, *options])
        return caught.value.code

    run.file = path
    return run


def say(path, **words):
    """A keyword file as a model might have left it; a random one says nothing worth a review."""
    answers = {"a": "the dog .", "b": "a large cat .", "c": "the bird .", "d": "the wooden deck ."}
    file.write(
        path,
        (
            {"query": query, "outputs": answers.get(n), "image": f"{n}.jpg", "keyword": words[n]}
            for n, query in QUERIES.items()
        ),
    )


def test_extract_writes_the_public_form_and_ends_at_once_when_given_again(
    keywords, reason_data, capsys, monkeypatch
):
    assert keywords("extract") == 0
    out = capsys.readouterr().out
    assert "of 5 queries have a keyword" in out
    assert "next: keyseg keywords review reason_seg" in out
    items = json.loads(keywords.file.read_text())
    assert [i["query"] for i in items][:2] == ["what barks ?", "what purrs ?"]
    assert [i["outputs"] for i in items][3:] == ["the wooden deck .", ""]
    assert all(i["json"] == f"{i['image'][0]}.json" for i in items)
    before = keywords.file.read_text()
    monkeypatch.setattr("keyseg.data.keywords.extract.load", None)  # no model is loaded
    assert keywords("extract") == 0
    assert keywords.file.read_text() == before

    target = reason_data / "reason_seg/explanatory_key/keyword_outputs.json"
    target.parent.mkdir()
    shutil.copy(keywords.file, target)
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "check", "reason_seg_key", f"data.root={reason_data}"])
    assert caught.value.code == 1, "val and test are absent"


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("google/flan-t5-xl", ["`hf download google/flan-t5-xl` gets it (11.4 GB", "--model"]),
        ("someone/else", ["https://huggingface.co/someone/else", "size: see the page"]),
        ("/no/such/folder", ["there is no folder /no/such/folder", "flan-t5-xl", "--model"]),
    ],
)
def test_a_missing_model_is_one_line(keywords, capsys, model, parts, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert keywords("extract", model=model) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: --model {model}")
    assert all(part in error for part in parts), error


def test_a_query_that_begins_like_a_formula_is_text_in_a_sheet(keywords, reason_data, tmp_path):
    """And is found again by what the sheet says of it."""
    formula = '=HYPERLINK("http://x","what barks ?")'
    note = reason_data / "reason_seg" / "ReasonSeg" / "train" / "a.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"text": [formula]}))
    entry = {"query": formula, "outputs": "-the dog .", "image": "a.jpg", "keyword": "dogs"}
    file.write(keywords.file, [entry])
    sheet = tmp_path / "sheet.csv"
    assert keywords("review", "--out", str(sheet)) == 0
    (row,) = csv.DictReader(sheet.read_text(encoding="utf-8-sig").splitlines())
    assert row["query"] == f"'{formula}"
    assert row["answer"] == "'-the dog ."
    sheet.write_text(sheet.read_text(encoding="utf-8").replace(",dog,", ",puppy,", 1))
    assert keywords("review", "--apply", str(sheet)) == 0
    (item,) = json.loads(keywords.file.read_text())
    assert (item["query"], item["keyword"]) == (formula, "puppy")


def test_review_by_csv(keywords, capsys, tmp_path):
    say(keywords.file, a="dogs", b="cat", c="bird", d="wooden", e="dog")
    sheet = tmp_path / "sheet.csv"
    assert keywords("review", "--out", str(sheet)) == 0
    assert "3 of 5 keywords to look at" in capsys.readouterr().out
    rows = list(csv.DictReader(sheet.read_text(encoding="utf-8-sig").splitlines()))
    doubts = [(r["now"], r["proposed"], r["reason"]) for r in rows]
    assert doubts == [
        ("dogs", "dog", "not in its one form"),
        ("wooden", "deck", "adjective"),
        ("dog", "dog", "stands in the query"),
    ]
    rows[0]["checked"] = "x"
    rows[1]["keyword"] = "ship's deck"
    with sheet.open("w", encoding="utf-8", newline="") as saved:  # as a spreadsheet may save it
        table = csv.DictWriter(saved, list(rows[0]), delimiter=";")
        table.writeheader()
        table.writerows(rows)
    assert keywords("review", "--apply", str(sheet)) == 0
    out = capsys.readouterr().out
    assert "by hand: corrected 2, confirmed 0" in out
    assert "still in doubt: 1" in out
    assert [i["keyword"] for i in json.loads(keywords.file.read_text())] == [
        "dog",
        "cat",
        "bird",
        "ship's deck",
        "dog",
    ]
    history = Journal(keywords.file).words
    deck = [(w.origin, w.keyword) for w in history if w.image == "d.jpg"]
    assert deck == [("extracted", "wooden"), ("human", "ship's deck")]

    assert keywords("review", "--apply", str(sheet)) == 0
    assert "corrected 0, confirmed 0" in capsys.readouterr().out
    assert Journal(keywords.file).words == history, "a sheet given twice counts once"
    assert keywords("review", "--rules") == 0
    assert "by rules: changed 1" in capsys.readouterr().out, "a doubt is written down"


def test_review_page(keywords, capsys):
    say(keywords.file, a="dogs", b="cat", c="</script>", d="wooden", e="")
    capsys.readouterr()
    assert keywords("review", "--all") == 0
    page = keywords.file.with_name("review.html")
    assert f"{page}: 5 of 5 keywords to look at" in capsys.readouterr().out
    text = page.read_text()
    assert text.count('<img src="data:image/jpeg;base64,') == 5
    assert not re.search(r'(src|href)="(?!data:)', text), "the page stands alone"
    assert text.count("</script>") == 1
    assert "stands in the query" not in text
    assert "adjective" in text


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("a,b\n1,2\n", "is no review sheet: it has no column checked, image, keyword"),
        ("checked,keyword,proposed,query,image\nx,dog,cat,who ?,a.jpg\n", "row 2 is on a query"),
    ],
)
def test_broken_sheets(keywords, capsys, tmp_path, content, match):
    say(keywords.file, a="dog", b="cat", c="bird", d="deck", e="dog")
    sheet = tmp_path / "s.csv"
    sheet.write_text(content)
    before = keywords.file.read_bytes()
    assert keywords("review", "--apply", str(sheet)) == 1
    assert match in capsys.readouterr().err
    assert keywords.file.read_bytes() == before


def test_errors_of_the_command_line(keywords, capsys, tmp_path):
    assert keywords("review") == 1
    assert "there is no keyword file" in capsys.readouterr().err
    assert keywords("extract", "--prompt", "none") == 2
    assert keywords("extract", "--batch", "0") == 2
    assert keywords("extract", "--split", "nowhere") == 1
    assert "has no split 'nowhere'" in capsys.readouterr().err
