"""Keyword policies of refer data: what they give, and that nothing else changes with them."""

import dataclasses

import pytest

from keyseg.data import refer
from keyseg.data.files import DataError
from keyseg.data.keywords import file
from keyseg.data.keywords.head_noun import head_noun
from keyseg.data.keywords.policy import POLICIES
from keyseg.data.mix import load
from keyseg.data.prefix import Prefix
from keyseg.data.prompts import Conversation, add_tokens
from keyseg.tiny.arch import make_processor


@pytest.mark.parametrize(
    ("policy", "keywords", "text"),
    [
        ("category", ["dog", "dog"], None),
        ("head_noun", ["dog", "dog"], "the dog"),
        ("expression", ["left dog", "the brown dog on a sofa"], "the dog"),
    ],
)
def test_policies(refer_folder, policy, keywords, text):
    root = refer_folder.write()
    examples = refer.read(root, "refcoco", "unc", "testA", keyword=policy)
    assert [e.keyword for e in examples] == keywords
    assert {e.text for e in examples} == {text}
    default = refer.read(root, "refcoco", "unc", "testA")
    same = [dataclasses.replace(e, keyword="dog", text=None) for e in examples]
    assert same == default, "nothing but the keyword, and how the answer is told, depends on it"


def test_the_answer_does_not_depend_on_the_policy(refer_folder, compose_run):
    """Else a sweep over policies would vary two things at once."""
    tokenizer, cfg = make_processor().tokenizer, compose_run()
    add_tokens(tokenizer, cfg.model.tokens)
    talk = Conversation(tokenizer, cfg.prompt, cfg.model.tokens, lambda _: Prefix.of([4]))
    root = refer_folder.write()
    answers = {
        tuple(talk.turn(example).ids)
        for policy in POLICIES
        for example in refer.read(root, "refcoco", "unc", "testA", texts="first", keyword=policy)
    }
    assert len(answers) == 1


def test_head_nouns_of_a_file(refer_folder):
    root = refer_folder.write()
    image = refer_folder.images[2]["file_name"]
    file.write(root / "mine.json", [{"query": "left dog", "image": image, "keyword": "puppy"}])
    examples = refer.read(
        root, "refcoco", "unc", "testA", keyword="head_noun", keyword_file="mine.json"
    )
    assert [e.keyword for e in examples] == ["puppy", "dog"], "rules for what it does not hold"
    with pytest.raises(DataError, match=r"mine\.json is read by data\.keyword=head_noun only"):
        refer.read(root, "refcoco", "unc", "testA", keyword_file="mine.json")
    with pytest.raises(DataError, match=r"keyword file is missing: .*none\.json"):
        refer.read(root, "refcoco", "unc", "testA", keyword="head_noun", keyword_file="none.json")
    with pytest.raises(DataError, match=r"data\.keyword=noun: must be one of category"):
        refer.read(root, "refcoco", "unc", "testA", keyword="noun")


@pytest.mark.parametrize("policy", POLICIES)
def test_an_axis_of_sweeps_on_scenes(small_run, policy):
    cfg = small_run(f"data.keyword={policy}")
    (refer_part, reason) = load(cfg.data, "train")
    wanted = {"category": None, "head_noun": head_noun, "expression": str}[policy]
    for example in refer_part.examples:
        assert example.keyword == (wanted(example.query) if wanted else example.keyword)
    assert all(e.keyword in e.text for e in reason.examples), "reasoning keeps its own"


def test_rules_find_the_category_in_scenes(small_run):
    heads = [e for s in load(small_run("data.keyword=head_noun").data, "train") for e in s.examples]
    categories = [e for s in load(small_run().data, "train") for e in s.examples]
    assert [e.keyword for e in heads] == [e.keyword for e in categories]
