"""What the composition reads: the right states, and nothing that tells it its target."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from keyseg.config import PROJECT
from keyseg.data.example import Example
from keyseg.data.mix import ImageGroup, load
from keyseg.model.fusion import NAME, OTHER
from keyseg.model.keyseg import KeywordHead, context_mask, names, projection
from keyseg.train.batch import Collator, Others

VARIANTS = sorted(p.stem for p in (PROJECT / "experiments" / "fusion").glob("*.yaml"))
WITHOUT_KEY = ("no_key",)
"""Options that leave KEY out of the answer."""
ORDERS = ("key_first", "seg_first")
SEG_FIRST = "model.tokens.order=seg_first"


def keys(name, count):
    """The override for so many KEY tokens, where the option has any."""
    return () if name in WITHOUT_KEY else (f"model.tokens.n_keys={count}",)


def test_context_is_the_prefix_and_ones_own_tokens_before_seg():
    segments = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, -1, -1, -1]])
    rows, seg_at = torch.tensor([0, 0, 1]), torch.tensor([3, 7, 2])
    assert context_mask(segments, rows, seg_at).int().tolist() == [
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
    ]


@pytest.fixture
def picture(scenes_folder):
    return sorted(scenes_folder.rglob("*.jpg"))[0]


@pytest.fixture
def example(picture):
    def make(keyword, text, where, query="find the thing"):
        mask = np.zeros((128, 128), np.uint8)
        mask[where] = 1
        return Example(
            id=f"{keyword} {text}",
            image=picture,
            image_id="image",
            query=query,
            is_sentence=False,
            keyword=keyword,
            text=text,
            slices={},
            load_mask=lambda: mask,
        )

    return make


@pytest.fixture
def batch_of(picture, scenes_folder, example):
    """One image with expressions; a control is given the KEY of a stranger for each."""
    other = replace(
        example("cup", "the cup", np.s_[:9], "the cup elsewhere"),
        image=sorted(scenes_folder.rglob("*.jpg"))[5],
    )

    def make(parts, *examples):
        collator = parts.collator
        if parts.model.fusion.key_from == OTHER:
            others = Others({e.id: other for e in examples}, parts.features.language)
            collator = Collator(parts.conversation, parts.features, others)
        return collator([ImageGroup(picture, "image", list(examples))])

    return make


def forward(parts, batch):
    with torch.no_grad():
        return parts.model(batch)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", VARIANTS)
def test_the_target_leaves_no_trace_in_the_mask(make_parts, example, batch_of, name, order):
    """Two examples that differ in their target only: keyword, words of the answer, mask.

    An oracle is told the keyword on purpose: nothing but that.
    """
    parts, _ = make_parts(f"fusion={name}", f"model.tokens.order={order}", *keys(name, 2))
    ball = example("ball", "the red ball", np.s_[:50, :50])
    light = example("traffic light", "the small green traffic light", np.s_[70:, 90:])
    one, two = batch_of(parts, ball), batch_of(parts, light)
    start, seg = int(parts.conversation.prefix((1, 1)).ids[0]), int(one.seg_at)
    assert one.packed.input_ids[0, 0] == start
    assert int(two.seg_at) == seg
    assert torch.equal(one.packed.input_ids[:, : seg + 1], two.packed.input_ids[:, : seg + 1])
    assert torch.equal(one.key_at, two.key_at)
    assert not torch.equal(one.masks[0], two.masks[0])
    assert one.packed.input_ids.shape != two.packed.input_ids.shape  # the answers do differ
    told = parts.model.fusion.key_from == NAME
    if told:
        two = replace(two, keyword_ids=one.keyword_ids)
    first, second = forward(parts, one), forward(parts, two)
    close = {"rtol": 1e-4, "atol": 1e-4 * float(first.mask_logits.abs().max())}
    torch.testing.assert_close(first.mask_logits, second.mask_logits, **close)
    torch.testing.assert_close(first.key_query, second.key_query, rtol=1e-4, atol=1e-4)
    both = batch_of(parts, ball, light)
    if told:
        both = replace(both, keyword_ids=one.keyword_ids * 2)
    together = forward(parts, both).mask_logits
    torch.testing.assert_close(together[:1], together[1:], **close)
    torch.testing.assert_close(together[:1], first.mask_logits, **close)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_query_decides_the_mask(make_parts, example, batch_of, name):
    """The other side of the test above: random weights do let the input through."""
    parts, _ = make_parts(f"fusion={name}")
    pair = [example("ball", None, np.s_[:9], q) for q in ("left red ball", "top blue house")]
    logits = forward(parts, batch_of(parts, *pair)).mask_logits
    spread = float(logits.abs().max())
    assert float((logits[0] - logits[1]).abs().max()) > 0.001 * spread


def rows_of(parts):
    """The trained rows of KEY and SEG."""
    model = parts.model
    return next(p for n, p in model.named_parameters() if "trainable_tokens_delta" in n)


@pytest.mark.parametrize(
    ("order", "state", "seg_reads", "key_reads"),
    [
        ("key_first", "token", {"KEY", "SEG"}, {"KEY"}),
        ("key_first", "previous", {"KEY"}, set()),
        ("seg_first", "token", {"SEG"}, {"KEY", "SEG"}),
        ("seg_first", "previous", set(), {"SEG"}),
    ],
)
def test_order_and_state(make_parts, example, batch_of, order, state, seg_reads, key_reads):
    """Which tokens' rows reach the states that are read for SEG and for KEY."""
    parts, _ = make_parts(
        "fusion=seg_only", f"model.tokens.order={order}", f"model.tokens.state={state}"
    )
    batch = batch_of(parts, example("ball", "the red ball", np.s_[:9]))
    before = forward(parts, batch)
    reads = {"seg": set(), "key": set()}
    for row, token in enumerate(("KEY", "SEG")):
        with torch.no_grad():
            rows_of(parts)[row] += 1
        after = forward(parts, batch)
        if not torch.equal(after.mask_logits, before.mask_logits):
            reads["seg"].add(token)
        if not torch.equal(after.key_query, before.key_query):
            reads["key"].add(token)
        with torch.no_grad():
            rows_of(parts)[row] -= 1
        before = forward(parts, batch)
    assert reads == {"seg": seg_reads, "key": key_reads}


@pytest.mark.parametrize("state", ["token", "previous"])
def test_states_are_read_where_the_batch_says(make_parts, example, batch_of, state):
    """`key_query` is W times the state at the token, or the one before it."""
    parts, _ = make_parts("model.tokens.n_keys=3", f"model.tokens.state={state}")
    batch = batch_of(parts, *(example("ball", None, np.s_[:9], q) for q in ("red", "blue ball")))
    with torch.no_grad():
        states = parts.model.vlm(batch.packed, batch.features.language)
        output = parts.model(batch)
    assert output.key_query.shape == (2, 3, 192)
    for n in range(2):
        for k in range(3):
            at = int(batch.key_at[n, k]) - (state == "previous")
            wanted = parts.model.keyword_head.project(states[0, at])
            torch.testing.assert_close(output.key_query[n, k], wanted.detach())


def test_outputs(make_parts, scenes_folder):
    parts, cfg = make_parts("fusion=full")
    examples = [e for s in load(cfg.data, "val") for e in s.examples]
    by_image = {}
    for e in examples:
        by_image.setdefault(e.image, []).append(e)
    groups = [ImageGroup(image, "", found[:2]) for image, found in by_image.items()]
    batch = parts.collator(groups)
    output = forward(parts, batch)
    n, words = len(batch.examples), len(parts.conversation.tokenizer)
    assert output.mask_logits.shape == (n, 64, 64)
    assert output.text_logits.shape == (int((batch.labels >= 0).sum()), words)
    assert output.key_query.shape == (n, 1, 192)
    assert output.table.shape == (words, 192)
    alone = forward(parts, parts.collator(groups[1:2]))
    mine = (batch.image_of == 1).nonzero().flatten()
    torch.testing.assert_close(output.mask_logits[mine], alone.mask_logits, rtol=1e-3, atol=1e-3)


def test_an_answer_without_tokens_still_has_outputs(make_parts, example, batch_of):
    parts, _ = make_parts("fusion=full")
    batch = batch_of(parts, example("ball", None, np.s_[:9]))
    empty = parts.collator.with_answers(batch, [[]])
    output = forward(parts, empty)
    assert output.mask_logits.isfinite().all()
    assert output.key_query.isfinite().all()


def test_a_variant_has_only_the_projections_it_reads(make_parts):
    wanted = {
        "seg_only": {"seg"},
        "self": {"seg", "context"},
        "cross": {"key"},
        "cross_self": {"key", "context"},
        "full": {"seg", "key", "context"},
    }
    for name in VARIANTS:
        model = make_parts(f"fusion={name}")[0].model
        kinds = ("seg", "key", "context")
        found = {k for k in kinds if getattr(model, f"{k}_projection") is not None}
        fusion = model.fusion
        uses = (fusion.uses_seg, fusion.uses_key, fusion.uses_context)
        assert found == {k for k, used in zip(kinds, uses, strict=True) if used}
        assert found == wanted.get(name, found)


def test_seg_and_key_may_share_a_projection_that_names_the_keyword_too(
    make_parts, example, batch_of
):
    shared = ("model.shared_projection=true", "loss.keyword.table=projected")
    parts, _ = make_parts(*shared)
    model = parts.model
    assert model.key_projection is model.seg_projection is model.keyword_head.project
    names = {name for name, _ in model.named_parameters()}
    assert not any(name.startswith(("key_projection", "keyword_head")) for name in names)
    batch = batch_of(parts, example("ball", None, np.s_[:9]))
    output = forward(parts, batch)
    vocabulary = len(model.vlm.table())
    assert output.key_query.shape == (1, 1, model.dim)
    assert output.table.shape == (vocabulary, model.dim)
    again, _ = make_parts(*shared)
    assert torch.equal(again.model.keyword_head.table, output.table)
    other, _ = make_parts(*shared, "seed=1")
    assert not torch.equal(other.model.keyword_head.table, output.table)
    apart, _ = make_parts("loss.keyword.table=projected")
    assert apart.model.keyword_head.project is not apart.model.key_projection


@pytest.mark.parametrize(
    "options",
    [(), ("model.projection_layers=1",), ("model.shared_projection=true",)],
    ids=["", "one layer", "shared"],
)
def test_the_matched_mlp_trains_as_many_parameters_in_all_as_full(make_parts, options):
    def trained(*fusion):
        model = make_parts(*fusion, *options)[0].model
        return sum(p.numel() for p in model.parameters() if p.requires_grad), model.dim

    (full, dim), (matched, _) = trained("fusion=full"), trained("fusion=mlp")
    assert abs(full - matched) <= dim + 1  # half a hidden unit
    fusion, _ = trained("fusion=mlp", "fusion.match=fusion")
    assert fusion < matched - dim


def test_all_rows_of_both_tables_may_be_trained(make_parts):
    """The keyword's table stays the pre-trained one."""
    parts, _ = make_parts("model.tokens.rows=all", shaken=False)
    model = parts.model
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    table = model.vlm.base.get_input_embeddings().weight
    head = model.vlm.base.get_output_embeddings().weight
    assert table.requires_grad
    assert head.requires_grad
    assert not any("token_adapter" in name for name in trained)
    kept = model.keyword_head.table.clone()
    with torch.no_grad():
        table.add_(1)
    assert torch.equal(model.keyword_head.table, kept)


@pytest.mark.parametrize(("layers", "linears"), [(1, 1), (2, 2), (3, 3)])
def test_projection(layers, linears):
    parts = projection(8, 3, layers)
    assert sum(isinstance(p, torch.nn.Linear) for p in parts) == linears
    assert parts(torch.zeros(2, 8)).shape == (2, 3)


def test_the_keyword_head_starts_as_the_language_models_own_words(make_parts, example, batch_of):
    parts, _ = make_parts("loss.keyword.similarity=dot", shaken=False)
    batch = batch_of(parts, example("ball", None, np.s_[:9]))
    output = forward(parts, batch)
    own = parts.model.vlm.logits(output.key_query[0, 0])
    torch.testing.assert_close(output.key_query[0, 0] @ output.table.T, own.detach())


def test_a_trained_table_is_a_copy():
    table = torch.randn(5, 4)
    frozen, trained = KeywordHead(table, train_table=False), KeywordHead(table, train_table=True)
    assert [n for n, _ in frozen.named_parameters()] == ["project.weight"]
    assert {n for n, _ in trained.named_parameters()} == {"project.weight", "table"}
    with torch.no_grad():
        trained.table.add_(1)
    assert torch.equal(frozen.table, table)


def test_the_mask_is_drawn_on_sams_embedding(make_parts, example, batch_of):
    parts, _ = make_parts()
    batch = batch_of(parts, example("ball", None, np.s_[:9]))
    moved = tuple(level + 1 for level in batch.features.mask)
    changed = replace(batch, features=replace(batch.features, mask=moved))
    one, two = (forward(parts, b).mask_logits for b in (batch, changed))
    assert not torch.equal(one, two)


def moved(parts, batch, places):
    """Whether the mask changes when the states at some places of a row do, after the LLM.

    `places`: (row, position) of each.
    """
    model = parts.model
    before = forward(parts, batch).mask_logits
    real = model.vlm.forward

    def disturbed(packed, clip):
        if packed is not batch.packed:  # another expression's rows
            return real(packed, clip)
        states = real(packed, clip).clone()
        for row, position in places:
            states[row, position] += 1
        return states

    model.vlm.forward = disturbed
    try:
        return not torch.equal(forward(parts, batch).mask_logits, before)
    finally:
        del model.vlm.forward


IN_CONTEXT = [
    (name, f"fusion.key_in_context={value}")
    for name in ("self", "full", "cross_self", "no_mlp", "no_residual", "random_key")
    for value in ("true", "false")
]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, ()) for name in VARIANTS if name not in WITHOUT_KEY),
        *(("self", ("fusion.key_in_context=true", order)) for order in ("", SEG_FIRST)),
        *((name, ("fusion.key_in_context=false",)) for name in ("full", "cross_self", "no_mlp")),
    ],
)
def test_keys_state_moves_the_mask_exactly_where_a_variant_says_it_reads_it(
    make_parts, example, batch_of, name, options
):
    """Through the whole model: the state at one KEY's place alone is disturbed.

    Read as KEY is the state at the token, or the one before it; the token's own position is closed
    with it. With KEY first and the state before a token, SEG's own state is that at the last KEY.
    """
    given = [*filter(None, options), "model.tokens.n_keys=2", "model.precision=fp32"]
    parts, _ = make_parts(f"fusion={name}", *given)
    batch = batch_of(parts, example("ball", "the red ball", np.s_[:9]))
    fusion, keys_at = parts.model.fusion, batch.key_at[0].tolist()
    for shift in (0, 1):  # tokens.state
        parts.model.shift = shift
        read, seg = {at - shift for at in keys_at}, int(batch.seg_at) - shift
        for place in sorted({*read, *keys_at}):
            wanted = parts.model.needs_key and place in read
            wanted |= fusion.uses_seg and place == seg
            wanted |= fusion.uses_context and fusion.key_in_context and place < seg
            assert moved(parts, batch, [(0, place)]) == wanted, (shift, place)


def test_the_controls_without_key_do_not_read_it():
    """What the test above goes by, said by name: none of these may have KEY in its fusion."""
    from omegaconf import OmegaConf

    for name in ("self", "random_key", "shuffled_key"):
        options = OmegaConf.load(PROJECT / "experiments" / "fusion" / f"{name}.yaml")
        assert options.key_in_context is False
    assert OmegaConf.load(PROJECT / "experiments/fusion/full.yaml").key_in_context is True


@pytest.mark.parametrize("name", ["no_key", "self", "mlp", "random_key"])
def test_without_key_there_is_neither_token_nor_row_nor_head(make_parts, scenes_folder, name):
    overrides = () if name in WITHOUT_KEY else ("model.tokens.n_keys=0",)
    parts, cfg = make_parts(f"fusion={name}", *overrides)
    talk, model = parts.conversation, parts.model
    assert talk.key_id is None
    assert "[KEY]" not in talk.tokenizer.get_vocab()
    assert len(rows_of(parts)) == 1
    assert model.keyword_head is None
    assert model.key_projection is None
    example = load(cfg.data, "train")[0].examples[0]
    batch = parts.collator([ImageGroup(example.image, "", [example])])
    answer = talk.text(batch.packed.input_ids[0].tolist()).partition("assistant")[2]
    assert "[SEG]" in answer
    assert "KEY" not in answer
    assert batch.key_at.shape == (1, 0)
    output = forward(parts, batch)
    assert output.key_query.shape == (1, 0, 192)
    assert output.mask_logits.isfinite().all()
    seg = int(batch.seg_at)
    assert moved(parts, batch, [(0, seg)])
    assert moved(parts, batch, [(0, seg - 1)]) == model.fusion.uses_context


def test_a_deranged_key_is_the_state_of_the_others_own_key(make_parts, example, batch_of):
    """Exactly what the other expression's KEY has in a row of its own; and no gradient flows."""
    parts, _ = make_parts("fusion=shuffled_key", "model.tokens.n_keys=2", "model.precision=fp32")
    one, two = example("ball", "the red ball", np.s_[:9]), example("ball", None, np.s_[:9], "b")
    batch = batch_of(parts, one, two)
    seen = []
    parts.model.key_projection.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    parts.model(batch)
    [given] = seen
    assert not given.requires_grad
    talk = parts.conversation
    other = batch.elsewhere
    assert other.rows.tolist() == [0, 0]
    ids = other.packed.input_ids[0]
    assert (ids[other.key_at] == talk.key_id).all()
    with torch.no_grad():
        states = parts.model.vlm(other.packed, other.language)
    torch.testing.assert_close(given, states[0, other.key_at])
    assert "ball" not in talk.text(ids.tolist())  # the other's own question, up to its KEY
    assert talk.text(ids.tolist()).endswith("[KEY] [KEY]")


def test_another_expressions_key_decides_a_deranged_mask(make_parts, example, batch_of):
    parts, _ = make_parts("fusion=shuffled_key", "model.precision=fp32")
    batch = batch_of(parts, example("ball", "the red ball", np.s_[:9]))
    changed = replace(batch.elsewhere, language=(batch.elsewhere.language[0] + 1,))
    one, two = (forward(parts, b).mask_logits for b in (batch, replace(batch, elsewhere=changed)))
    assert not torch.equal(one, two)


def test_an_oracle_reads_the_mean_of_the_keywords_rows(make_parts, example, batch_of):
    parts, _ = make_parts("fusion=oracle_key", "model.tokens.n_keys=2", "model.precision=fp32")
    ball, light = (
        example("ball", "the red ball", np.s_[:9]),
        example("traffic light", "x", np.s_[:9]),
    )
    none = example(None, "the thing", np.s_[:9], "q")
    batch = batch_of(parts, ball, light, none)
    seen = []
    parts.model.key_projection.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    forward(parts, batch)
    table = parts.model.vlm.table()
    ids = [parts.conversation.keyword_ids(e.keyword) for e in (ball, light)]
    assert [len(i) for i in ids] == [1, 2]
    wanted = torch.stack([*(table[i].mean(0) for i in ids), torch.zeros(192)])
    assert torch.equal(names(table, batch.keyword_ids), wanted)
    for k in range(2):
        torch.testing.assert_close(seen[0][:, k], wanted)
    # the name alone decides: the same question under another keyword has another mask
    renamed = replace(batch, keyword_ids=[ids[1], ids[1], []])
    one, two = (forward(parts, b).mask_logits for b in (batch, renamed))
    assert not torch.equal(one[0], two[0])
    assert torch.equal(one[1:], two[1:])
