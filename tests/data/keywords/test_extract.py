"""Extraction with a real text2text model: the same words in any batch, and after any stop."""

import json

import pytest
import torch

from keyseg.config import ConfigError
from keyseg.data.files import DataError
from keyseg.data.keywords import extract, settle
from keyseg.data.keywords.journal import EXTRACTED, HUMAN, RULE, Journal, Word

ITEMS = [
    {"query": f"what {verb} ?", "outputs": f"the {noun} .", "image": f"{verb}.jpg", "json": ""}
    for verb, noun in (("barks", "dog"), ("purrs", "cat"), ("sings", "bird"), ("is red", "ball"))
]


@pytest.fixture(scope="module")
def ask(t5_folder):
    return extract.load(str(t5_folder), "tiny", "", torch.device("cpu"))


def test_words_do_not_depend_on_the_batch(ask):
    prompts = [f"{i['query']} {i['outputs']}" for i in ITEMS]
    together = ask(prompts)
    assert together == [ask([p])[0] for p in prompts] == ask(prompts)
    assert len(set(together)) > 1


def last_word(prompts):
    """Stands for a model where only the order of the work is looked at."""
    return [p.split()[-2] for p in prompts]


def run(path, batches=None, by="tiny"):
    """Extract into `path`, and stop after so many batches if told; sizes of what was asked."""
    asked = []

    def counting(prompts):
        asked.append(len(prompts))
        return last_word(prompts)

    work = extract.extract(ITEMS, Journal(path), lambda: counting, "{query} {answer}", by, 2)
    for n, _ in enumerate(work, 1):
        if n == batches:
            break
    return asked


def test_goes_on_where_it_was_stopped(tmp_path):
    whole, stopped = tmp_path / "whole.json", tmp_path / "stopped.json"
    assert run(whole) == [2, 2]
    assert run(stopped, batches=1) == [2]
    journal = Journal(stopped).path
    torn = journal.read_bytes() + b'{"image": "sings.jpg", "query": "what si'
    journal.write_bytes(torn)  # what a killed process may leave
    assert run(stopped) == [2]
    assert Journal(stopped).words == Journal(whole).words
    assert run(stopped) == [], "nothing is asked for twice, and no model is loaded"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    assert run(stopped) == [2], "a batch of which a word is missing is asked for whole"
    assert Journal(stopped).words == Journal(whole).words


def test_another_model_or_prompt_asks_anew(tmp_path):
    path = tmp_path / "k.json"
    run(path)
    assert run(path, by="other") == [2, 2]
    assert len(Journal(path).words) == 8


def test_prompts(tmp_path):
    for name, text in extract.PROMPTS.items():
        assert extract.template(name) == text
        assert "barks" in text.format(query="what barks", answer="")
    mine = tmp_path / "mine.txt"
    mine.write_text("Object in: {query}")
    assert extract.template(str(mine)) == "Object in: {query}"
    for wrong, match in (
        ("{answer}", r"needs \{query\}"),
        ("{query} {image}", "may have"),
        ("{query", "a brace is written twice"),
    ):
        mine.write_text(wrong)
        with pytest.raises(ConfigError, match=match):
            extract.template(str(mine))
    with pytest.raises(ConfigError, match="--prompt none: must be one of paper, released, or"):
        extract.template("none")


def test_what_is_no_text2text_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match=r"--model llama: cannot be loaded.*Get one") as caught:
        extract.load(str(tmp_path), "llama", "Get one", torch.device("cpu"))
    assert "\n" not in str(caught.value)


def word(n, keyword, origin, reason=""):
    return Word(ITEMS[n]["image"], ITEMS[n]["query"], keyword, origin, "x", reason)


def test_a_persons_word_stands(tmp_path):
    journal = Journal(tmp_path / "k.json")
    journal.add([word(0, "dogs", EXTRACTED), word(1, "wooden", EXTRACTED), word(2, "a", EXTRACTED)])
    journal.add([word(3, "ball", EXTRACTED), word(0, "poodle", HUMAN)])
    assert settle.rule(ITEMS, journal) == 2
    now = {w.query: (w.keyword, w.origin) for w in journal.current().values()}
    assert now == {
        "what barks ?": ("poodle", HUMAN),
        "what purrs ?": ("", RULE),
        "what sings ?": ("", RULE),
        "what is red ?": ("ball", EXTRACTED),
    }
    assert settle.rule(ITEMS, journal) == 0, "rules say the same a second time"
    journal.add([word(0, "hounds", EXTRACTED)])
    assert settle.rule(ITEMS, Journal(tmp_path / "k.json")) == 0
    assert journal.current()[("barks", "what barks ?")].keyword == "poodle"


def test_a_damaged_journal_is_an_error(tmp_path):
    (tmp_path / "k.origins.jsonl").write_text('{"image": 1}\n')
    with pytest.raises(DataError, match=r"k\.origins\.jsonl: line 1 is no word"):
        Journal(tmp_path / "k.json")
    (tmp_path / "k.origins.jsonl").write_text("[]\n")
    with pytest.raises(DataError, match="line 1 is no word"):
        Journal(tmp_path / "k.json")


def test_the_file_has_the_public_form(tmp_path):
    path = tmp_path / "new" / "keyword_outputs.json"
    journal = Journal(path)
    journal.add([word(n, "dog", EXTRACTED) for n in range(3)])
    settle.write(path, ITEMS, journal)
    written = json.loads(path.read_text())
    assert written[0] == ITEMS[0] | {"keyword": "dog"}
    assert list(written[0]) == ["query", "outputs", "image", "json", "keyword"]
    assert len(written) == 3, "a query that nothing was said on is left out"
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []
