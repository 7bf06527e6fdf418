from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keyseg.config import ConfigError, TokensConfig
from keyseg.data.example import Example, Target
from keyseg.data.prefix import Prefix
from keyseg.data.prompts import Conversation, Places, add_tokens
from keyseg.tiny.arch import make_processor

IMAGE, IMAGE_ID = 6, 4


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = make_processor().tokenizer
    add_tokens(tokenizer, TokensConfig())
    return tokenizer


@pytest.fixture
def talk(tokenizer, compose_run):
    def make(*overrides, **prompt):
        cfg = compose_run(*overrides)
        for key, value in prompt.items():
            setattr(cfg.prompt, key, value)
        return Conversation(
            tokenizer, cfg.prompt, cfg.model.tokens, lambda _: Prefix.of([IMAGE_ID] * IMAGE)
        )

    return make


def example(query="left red ball", keyword="ball", text=None, is_sentence=False):
    mask = np.zeros((2, 2), np.uint8)
    return Example("e", Path("x.jpg"), "x", query, is_sentence, keyword, text, {}, lambda: mask)


def words(talk, ids):
    return talk.tokenizer.convert_ids_to_tokens(ids)


@pytest.mark.parametrize(
    ("order", "n_keys", "tokens"),
    [
        ("key_first", 1, ["[KEY]", "[SEG]"]),
        ("key_first", 3, ["[KEY]", "[KEY]", "[KEY]", "[SEG]"]),
        ("seg_first", 1, ["[SEG]", "[KEY]"]),
        ("seg_first", 2, ["[SEG]", "[KEY]", "[KEY]"]),
    ],
)
def test_a_turn_word_by_word(talk, order, n_keys, tokens):
    made = talk(f"model.tokens.order={order}", f"model.tokens.n_keys={n_keys}")
    turn = made.turn(example(text="the red ball"))
    question = ["find", "left", "red", "ball", ".", "assistant", ":"]
    answer = ["sure", ",", *tokens, ".", "the", "red", "ball", ".", "</s>"]
    assert words(made, made.prefix((1, 1)).ids) == ["<s>", "user", ":", *["<image>"] * IMAGE]
    assert words(made, turn.ids) == question + answer
    assert turn.answer == len(question)
    assert turn.keys == [i for i, w in enumerate(question + answer) if w == "[KEY]"]
    assert turn.seg == (question + answer).index("[SEG]")
    assert made.question(example()) == turn.ids[: turn.answer]


def test_a_question_of_its_own_is_asked_under_test_alone(talk):
    made = talk(test="{query}")
    for sentence in (False, True):
        asked = made.question(example(is_sentence=sentence))
        assert words(made, asked) == ["left", "red", "ball", "assistant", ":"]
    trained = made.question(example(), np.random.default_rng(0))
    assert words(made, trained) == ["find", "left", "red", "ball", ".", "assistant", ":"]
    with pytest.raises(ConfigError, match=r"prompt\.test: 'what' needs \{query\}"):
        talk(test="what")


def test_the_released_prompt_has_its_numbers_of_templates_a_bare_answer_among_them(compose_run):
    prompt = compose_run("prompt=released").prompt
    assert [len(prompt.short), len(prompt.long), len(prompt.answers)] == [4, 2, 5]
    assert (prompt.answers[0], prompt.test) == ("{tokens}.", "{query}")


def test_without_key_the_answer_holds_seg_alone(compose_run):
    cfg = compose_run("fusion=no_key")
    tokenizer = make_processor().tokenizer
    assert len(add_tokens(tokenizer, cfg.model.tokens)) == 1
    talk = Conversation(
        tokenizer, cfg.prompt, cfg.model.tokens, lambda _: Prefix.of([IMAGE_ID] * IMAGE)
    )
    turn = talk.turn(example(text="the red ball"))
    assert words(talk, turn.ids[turn.answer :]) == [
        "sure",
        ",",
        "[SEG]",
        ".",
        "the",
        "red",
        "ball",
        ".",
        "</s>",
    ]
    assert (turn.keys, talk.key_id) == ([], None)
    assert turn.ids[turn.seg] == talk.seg_id


@pytest.mark.parametrize("prompt", ["short", "lisa"])
def test_an_answer_may_leave_the_target_unnamed(talk, prompt):
    """What comes before {text} stays as it is, in every template."""
    named, unnamed = (
        talk(f"prompt={prompt}", f"prompt.names_target={value}") for value in ("true", "false")
    )
    for seed in range(8):
        one, two = (
            t.turn(example(text="the red ball"), np.random.default_rng(seed))
            for t in (named, unnamed)
        )
        assert not {"red", "ball"} & set(words(unnamed, two.ids[two.answer :]))
        assert "ball" in words(named, one.ids[one.answer :])
        end = len(two.ids) - 1
        assert two.ids[:end] == one.ids[:end]
        assert (two.keys, two.seg) == (one.keys, one.seg)
        assert words(unnamed, two.ids[-1:]) == ["</s>"]


def test_sentences_have_templates_of_their_own(talk):
    made = talk(short=["find {query} ."], long=["{query}"])
    query = "which red thing could roll down a hill ?"
    turn = made.turn(example(query, is_sentence=True))
    asked = turn.ids[: turn.answer]
    assert words(made, asked) == [*query.split(), "assistant", ":"]


def test_without_a_text_the_keyword_is_named(talk):
    made = talk()
    assert made.turn(example(text=None)) == made.turn(example(text="the ball"))


def test_system_text_comes_first_and_once(talk):
    made = talk(system="here is ")
    assert words(made, made.prefix((1, 1)).ids)[:5] == ["<s>", "here", "is", "user", ":"]
    assert made.prefix((1, 1)).ids.count(IMAGE_ID) == IMAGE
    assert IMAGE_ID not in made.turn(example()).ids
    assert "<s>" not in words(made, made.turn(example()).ids)


def test_templates_are_drawn_with_the_generator_and_the_first_without(talk):
    made = talk(short=["find {query} .", "where is {query} ?"], answers=["{tokens} .", "{tokens}"])
    first = made.turn(example())
    assert made.turn(example()) == first
    seen = {tuple(made.turn(example(), np.random.default_rng(seed)).ids) for seed in range(40)}
    assert len(seen) == 4
    assert tuple(first.ids) in seen
    again = made.turn(example(), np.random.default_rng(3))
    assert again == made.turn(example(), np.random.default_rng(3))


@pytest.mark.parametrize("answer", ["{text} {tokens}", "a {text} at {tokens} . {text}"])
def test_an_answer_that_names_the_target_first_is_refused(talk, answer):
    with pytest.raises(ConfigError, match="names the target before the tokens") as caught:
        talk(answers=["{tokens} . {text}", answer])
    assert answer in str(caught.value)


@pytest.mark.parametrize("answer", ["sure .", "{text}", "{tokens} {txt}", "{tokens} {"])
def test_an_answer_must_hold_the_tokens_and_known_fields_only(talk, answer):
    with pytest.raises(ConfigError, match=r"prompt\.answers"):
        talk(answers=["{tokens}", answer])


@pytest.mark.parametrize("user", ["{question}", "<image>", "{question} <image>"])
def test_the_users_turn_needs_image_then_question(talk, user):
    with pytest.raises(ConfigError, match=r"prompt\.user=.*needs <image> once, then"):
        talk(user=user)


@pytest.mark.parametrize("prompt", ["short", "lisa"])
@pytest.mark.parametrize("order", ["key_first", "seg_first"])
def test_nothing_before_the_later_token_depends_on_the_target(talk, prompt, order):
    """Whatever template is drawn: what stands up to both tokens is a function of the query."""
    made = talk(f"prompt={prompt}", f"model.tokens.order={order}", "model.tokens.n_keys=2")
    for seed in range(10):
        one = made.turn(example(keyword="ball", text="the ball"), np.random.default_rng(seed))
        two = made.turn(example(keyword="kite", text=None), np.random.default_rng(seed))
        last = max(one.seg, *one.keys)
        assert one.ids[: last + 1] == two.ids[: last + 1]
        assert one.ids != two.ids
        assert (one.keys, one.seg) == (two.keys, two.seg)


@pytest.mark.parametrize(
    ("answer", "keys", "seg"),
    [
        ("sure , [KEY] [KEY] [SEG] . the ball . </s>", [4, 5], 6),
        ("[SEG] [KEY] a [KEY]", [3, 5], 2),
        ("[KEY] [SEG]", None, 3),
        ("[KEY] [KEY]", [2, 3], None),
        ("sure .", None, None),
        ("", None, None),
        ("[KEY] [KEY] [KEY] [SEG] [SEG]", [2, 3], 5),
    ],
)
def test_reading_generated_answers(talk, tokenizer, answer, keys, seg):
    made = talk("model.tokens.n_keys=2")
    question = tokenizer("[KEY] [SEG]", add_special_tokens=False)["input_ids"]  # asked: not read
    reply = tokenizer(answer, add_special_tokens=False)["input_ids"]
    turn = made.read(question, reply)
    assert turn.ids == question + reply
    assert (turn.answer, turn.keys, turn.seg) == (2, keys, seg)


def asks_for(*targets, answer=None):
    """An example with several targets, (name, keyword) each."""
    made = tuple(Target(name, keyword, lambda: None) for name, keyword in targets)
    return replace(example(text="all of them", is_sentence=True), targets=made, answer=answer)


BALL, KITE = ("red ball", "ball"), (None, "kite")


@pytest.mark.parametrize(
    ("order", "first", "second"),
    [("key_first", "[KEY] [SEG]", "[KEY] [SEG]"), ("seg_first", "[SEG] [KEY]", "[SEG] [KEY]")],
)
def test_an_answer_with_several_targets(talk, order, first, second):
    made = talk(f"model.tokens.order={order}")
    turn = made.turn(asks_for(BALL, KITE))
    said = made.text(turn.ids[turn.answer :])
    assert said == f"sure , the red ball {first} , the kite {second} ."
    at = {t: [i for i, w in enumerate(words(made, turn.ids)) if w == t] for t in ("[KEY]", "[SEG]")}
    assert turn.places == [Places([k], s) for k, s in zip(at["[KEY]"], at["[SEG]"], strict=True)]
    assert (turn.keys, turn.seg) == ([at["[KEY]"][0]], at["[SEG]"][0])
    one = made.turn(asks_for(KITE))
    assert made.text(one.ids[one.answer :]) == f"sure , the kite {first} ."
    assert len(one.places) == 1


def test_the_data_s_own_answer_and_one_that_names_nothing(talk):
    given = asks_for(BALL, KITE, answer="a ball {seg} with {braces} and a {seg} <image>")
    made = talk()
    turn = made.turn(given)
    said = words(made, turn.ids[turn.answer :])
    assert [w for w in said if w in ("ball", "a", "[KEY]", "[SEG]")] == [
        "a", "ball", "[KEY]", "[SEG]", "a", "[KEY]", "[SEG]"
    ]  # fmt: skip
    assert IMAGE_ID not in turn.ids
    assert len(turn.places) == 2
    silent = talk(names_target=False)
    turn = silent.turn(given)
    assert silent.text(turn.ids[turn.answer :]) == "sure , [KEY] [SEG] , [KEY] [SEG] ."
    after = talk("prompt.each='{tokens} {text}'").turn(asks_for(BALL, KITE))
    said = made.text(after.ids[after.answer :])
    assert said == "sure , [KEY] [SEG] the red ball , [KEY] [SEG] the kite ."


@pytest.mark.parametrize(
    ("order", "answer", "places"),
    [
        ("key_first", "[KEY] [KEY] [SEG] a [KEY] [KEY] [SEG]", [([0, 1], 2), ([4, 5], 6)]),
        ("key_first", "[KEY] [SEG] [KEY] [KEY] [KEY] [SEG]", [(None, 1), ([3, 4], 5)]),
        ("key_first", "[SEG] [SEG]", [(None, 0), (None, 1)]),
        ("seg_first", "[SEG] [KEY] [KEY] [SEG] [KEY]", [([1, 2], 0), (None, 3)]),
        ("key_first", "[KEY] [KEY] a", [([0, 1], None)]),
        ("key_first", "a", [(None, None)]),
        ("key_first", "", [(None, None)]),
    ],
)
def test_reading_several_masks(talk, tokenizer, order, answer, places):
    made = talk("model.tokens.n_keys=2", f"model.tokens.order={order}")
    reply = tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert made.read([], reply, several=True).places == [Places(*place) for place in places]
    none = talk("model.tokens.n_keys=0").read([], reply, several=True)
    assert [p.seg for p in none.places] == [seg for _, seg in places]
    assert {tuple(p.keys) for p in none.places} == {()}


def test_tokens_are_themselves_and_nothing_else(tokenizer):
    for token in ("[KEY]", "[SEG]"):
        assert tokenizer.tokenize(f"a {token}.") == ["a", token, "."]
        assert token.lower() not in tokenizer.tokenize(token.lower())


def test_a_full_answer_is_read_as_it_was_written(talk):
    made = talk()
    turn = made.turn(example())
    assert made.read(turn.ids[: turn.answer], turn.ids[turn.answer :]) == turn


def test_keyword_ids(talk, tokenizer):
    made = talk()
    assert words(made, made.keyword_ids("traffic light")) == ["traffic", "light"]
    assert made.keyword_ids(None) == []


def test_text_of_an_answer(talk):
    made = talk()
    turn = made.turn(example(text="the red ball"))
    assert made.text(turn.ids[turn.answer :]) == "sure , [KEY] [SEG] . the red ball ."


@pytest.mark.parametrize("name", ["<image>", "[SEG]", "[KEY]", "</s>", "<s>", "[seg]", "<IMAGE>"])
def test_a_token_s_name_in_a_text_is_text(talk, tokenizer, name):
    """A query that holds one is no image's place, no end and no SEG; others are as they were."""
    made = talk()
    ids = made.question(example(query=f"the ball {name} left"))
    reserved = set(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}
    assert not reserved & set(ids)
    around = made.question(example(query="the ball left"))
    assert len(ids) > len(around)
    turn = made.turn(example(text=f"the {name} ball", keyword=name))
    assert sorted(reserved & set(turn.ids)) == sorted(
        tokenizer.convert_tokens_to_ids(["[KEY]", "[SEG]", "</s>"])
    )
    assert sum(i in reserved for i in turn.ids) == 3
    assert made.read(turn.ids[: turn.answer], turn.ids[turn.answer :]) == turn
    assert not reserved & set(made.keyword_ids(name))


def test_braces_in_a_query_are_text(talk):
    made = talk()
    turn = made.turn(example(query="{text} {0} ball"))
    assert "ball" in words(made, turn.ids[: turn.answer])


@pytest.mark.parametrize(
    ("name", "behind", "tokens", "said"),
    [
        ("lisa_literal", " ", "[SEG]", "[SEG]."),
        ("read_literal", "", "[SEG]", "Sure, the segmentation result is [SEG]."),
        ("keyseg_literal", " ", "[SEG]{between}[KEY]", "[SEG]. [KEY]."),
    ],
)
def test_a_literal_prompt_is_what_its_code_evaluates(compose_run, name, behind, tokens, said):
    """The strings of an evaluation on ReasonSeg, put together as LISA's conversation does."""
    prompt = compose_run(f"prompt={name}").prompt
    turn = prompt.user.replace("{question}", prompt.short[0].format(query="the dog"))
    tokens = tokens.format(between=prompt.between)
    answer = prompt.answers[0].format(tokens=tokens) + prompt.end
    assert prompt.system + turn + prompt.assistant + answer == (
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions. "
        f"USER: <image>\n{behind}What is the dog in this image? Please output segmentation mask. "
        f"ASSISTANT: {said}</s>"
    )
    assert prompt.long == ["{query} Please output segmentation mask."]
