"""Every fusion variant against its formula, computed slowly, head by head and position by position.

Shapes: N expressions, K KEY tokens, T context positions, C channels.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from keyseg.config import PROJECT, ConfigError
from keyseg.model.fusion import mlp
from keyseg.model.variant import build_fusion

VARIANTS = sorted(p.stem for p in (PROJECT / "experiments" / "fusion").glob("*.yaml"))
WITHOUT_KEY = ("no_key",)
"""Options that leave KEY out of the answer."""
OPTIONS = [
    *((name, ()) for name in VARIANTS),
    ("self", ("fusion.residual=false",)),
    ("full", ("fusion.residual=cross",)),
]
N, T, C = 3, 5, 16

every_option = pytest.mark.parametrize(
    ("name", "options"), OPTIONS, ids=[" ".join([n, *o]) for n, o in OPTIONS]
)
every_count = pytest.mark.parametrize("n_keys", [1, 3])


@pytest.fixture
def variant(compose_run):
    def make(name, n_keys, *options):
        torch.manual_seed(5)
        counted = () if name in WITHOUT_KEY else (f"model.tokens.n_keys={n_keys}",)
        cfg = compose_run(f"fusion={name}", *counted, *options)
        return cfg, build_fusion(cfg, C)

    return make


@pytest.fixture
def sample():
    """Random seg, key, context and a context mask; the last expression sees one position only."""

    def draw(n_keys):
        rng = torch.Generator().manual_seed(7)
        seg = torch.randn(N, C, generator=rng)
        key = torch.randn(N, n_keys, C, generator=rng)
        context = torch.randn(N, T, C, generator=rng)
        mask = torch.tensor(
            [[True, True, False, True, True], [True] * 5, [True, False, False, False, False]]
        )
        return seg, key, context, mask

    return draw


def slow_linear(layer, x):
    out = [sum(w * v for w, v in zip(row, x, strict=True)) for row in layer.weight.tolist()]
    bias = [0.0] * len(out) if layer.bias is None else layer.bias.tolist()
    return [a + b for a, b in zip(out, bias, strict=True)]


def slow_attention(layer, query, sources):
    """Softmax attention of one query over a list of vectors (all plain lists)."""
    values = [slow_linear(layer.value, s) for s in sources]
    width = C // layer.heads
    mixed = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        if layer.single:
            assert len(sources) == 1
            weights = [1.0]
        else:
            q = slow_linear(layer.query, query)[part]
            scores = []
            for s in sources:
                k = slow_linear(layer.key, s)[part]
                scores.append(sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(width))
            powers = [math.exp(s - max(scores)) for s in scores]
            weights = [p / sum(powers) for p in powers]
        for c in range(part.start, part.stop):
            mixed.append(sum(w * v[c] for w, v in zip(weights, values, strict=True)))
    return slow_linear(layer.out, mixed)


def slow_mlp(layers, x):
    hidden = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in slow_linear(layers[0], x)]
    return slow_linear(layers[2], hidden)


def slow(name, options, module, seg, keys, context):
    """The formulas of the variants' docstrings for one expression; `context` holds visible ones."""

    def add(a, b):
        return [x + y for x, y in zip(a, b, strict=True)]

    def mean(vectors):
        return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]

    def cross(s):
        return slow_attention(module.cross, s, keys)

    def sequence(s):
        return slow_attention(module.attention.attention, s, [s, *context])

    def perceptron(s):
        return slow_mlp(module.mlp, s)

    match name, options:
        case (("seg_only" | "no_key"), ()):
            return seg
        case "self", ():
            second = add(seg, sequence(seg))
            return add(second, perceptron(second))
        case "self", ("fusion.residual=false",):
            return perceptron(sequence(seg))
        case "cross", ():
            return cross(seg)
        case "cross_self", ():
            return sequence(cross(seg))
        case "full", ():
            first = add(seg, cross(seg))
            second = add(first, sequence(first))
            return add(second, perceptron(second))
        case "full", ("fusion.residual=cross",):
            return perceptron(sequence(add(seg, cross(seg))))
        case (("shuffled_key" | "random_key" | "oracle_key"), ()):  # whose KEY, the caller knows
            return slow("full", (), module, seg, keys, context)
        case (("released" | "released_trained"), ()):
            first = add(seg, slow_linear(module.value, mean(keys)))
            return add(first, perceptron(first))
        case "cross_residual", ():
            return add(seg, cross(seg))
        case "no_mlp", ():
            first = add(seg, cross(seg))
            return add(first, sequence(first))
        case "no_residual", ():
            return perceptron(sequence(cross(seg)))
        case "add", ():
            return add(seg, mean(keys))
        case "mlp", ():
            return add(seg, perceptron(seg))
    raise AssertionError(
        f"no slow reference for fusion={name} {options}: write one from its formula"
    )


@every_count
@every_option
def test_formula(variant, sample, name, options, n_keys):
    _, module = variant(name, n_keys, *options)
    seg, key, context, mask = sample(n_keys)
    with torch.no_grad():
        out = module(seg, key, context, mask)
    assert out.shape == (N, C)
    for n in range(N):
        visible = context[n][mask[n]].tolist()
        read = (module.noise[0] if name == "random_key" else key[n]).tolist()
        wanted = slow(name, options, module, seg[n].tolist(), read, visible)
        torch.testing.assert_close(out[n], torch.tensor(wanted), rtol=1e-4, atol=1e-5)


@every_count
@every_option
def test_every_parameter_gets_a_gradient(variant, sample, name, options, n_keys):
    """But for `released`, whose parameters are frozen because the public code's are."""
    _, module = variant(name, n_keys, *options)
    seg, *others = sample(n_keys)
    module(
        seg.requires_grad_(), *(t.requires_grad_(t.is_floating_point()) for t in others)
    ).square().sum().backward()
    still = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    frozen = [n for n, p in module.named_parameters() if not p.requires_grad]
    assert still == frozen
    assert bool(frozen) == (name == "released")
    assert bool(list(module.parameters())) == (name not in ("seg_only", "no_key", "add"))


@every_count
@every_option
def test_what_is_read(variant, sample, name, options, n_keys):
    """`uses_*` decides which projections exist: each must be true exactly when it matters."""
    _, module = variant(name, n_keys, *options)
    seg, key, context, mask = sample(n_keys)
    inputs = [t.requires_grad_() for t in (seg, key, context)]
    out = module(*inputs, mask)
    gradients = torch.autograd.grad(out.square().sum(), inputs, allow_unused=True)
    read = tuple(g is not None and bool(g.any()) for g in gradients)
    assert read == (module.uses_seg, module.uses_key, module.uses_context)


@every_option
def test_masked_context_does_not_matter(variant, sample, name, options):
    _, module = variant(name, 3, *options)
    seg, key, context, mask = sample(3)
    with torch.no_grad():
        out = module(seg, key, context, mask)
        other = torch.where(mask[..., None], context, 100 * torch.ones_like(context))
        assert torch.equal(module(seg, key, other, mask), out)
        if module.uses_context:
            assert not torch.allclose(module(seg, key, context, torch.ones_like(mask)), out)


def test_without_context_seg_attends_to_itself(variant):
    _, module = variant("self", 1)
    seg = torch.randn(N, C)
    nothing = torch.zeros(N, 0, C), torch.zeros(N, 0, dtype=torch.bool)
    masked = torch.randn(N, T, C), torch.zeros(N, T, dtype=torch.bool)
    with torch.no_grad():
        alone = module(seg, seg[:, :0, None], *nothing)
        torch.testing.assert_close(module(seg, seg[:, :0, None], *masked), alone)


def test_one_key_leaves_no_query_and_key_projections(variant):
    """Softmax over one key is 1 whatever the query: both could never learn."""
    for name in ("cross", "cross_self", "full"):
        assert sorted(n for n, _ in variant(name, 1)[1].cross.named_children()) == ["out", "value"]
        assert len(list(variant(name, 3)[1].cross.children())) == 4


def test_cross_with_one_key_is_linear_in_key(variant):
    _, module = variant("cross", 1)
    key = torch.randn(2, 1, C)
    with torch.no_grad():
        zero = module(None, torch.zeros(1, 1, C), None, None)
        one, two = module(None, key[:1], None, None), module(None, key[1:], None, None)
        both = module(None, key[:1] + 2 * key[1:], None, None)
    torch.testing.assert_close(both - zero, one - zero + 2 * (two - zero))


def test_entropy_of_uniform_attention(variant):
    _, module = variant("cross", 3)
    key = torch.randn(N, 1, C).expand(N, 3, C)  # equal keys get equal weights
    module(torch.randn(N, C), key, None, None)
    assert float(module.cross.entropy) == pytest.approx(math.log(3), rel=1e-5)
    assert not module.cross.entropy.requires_grad


def test_single_attention_refuses_more_keys(variant):
    _, module = variant("cross", 1)
    with pytest.raises(AssertionError, match="3 keys for single-key attention"):
        module(torch.randn(N, C), torch.randn(N, 3, C), None, None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("fusion=full", "fusion.residual=none"), r"fusion=full .*residual=none: must be one of"),
        (("fusion=full", "fusion.heads=5"), r"fusion=full .*16 is not a multiple of 5 heads"),
        (("fusion=full", "+fusion.depth=2"), r"fusion=full .*unexpected keyword.*depth"),
        (("fusion._target_=keyseg.model.fusion.Ful",), r"no attribute 'Ful'"),
        (("fusion._target_=no_such.Variant",), r"may name what is in keyseg.*'no_such'"),
    ],
)
def test_what_cannot_be_built_says_why(compose_run, overrides, message):
    with pytest.raises(ConfigError, match=message):
        build_fusion(compose_run(*overrides), C)


def test_dropping_a_residual_changes_the_result(variant, sample):
    for name, option in (("self", "fusion.residual=false"), ("full", "fusion.residual=cross")):
        default, other = variant(name, 3)[1], variant(name, 3, option)[1]
        other.load_state_dict(default.state_dict())  # the same parameters: only the sum differs
        with torch.no_grad():
            assert not torch.allclose(default(*sample(3)), other(*sample(3)))


def test_gelu_of_the_reference_is_torchs():
    x = torch.linspace(-3, 3, 7)
    mine = torch.tensor([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()])
    torch.testing.assert_close(F.gelu(x), mine)


def test_the_matched_mlp_has_as_many_parameters_as_full(variant):
    for n_keys in (1, 3):
        full, matched = (
            sum(p.numel() for p in variant(name, n_keys)[1].parameters())
            for name in ("full", "mlp")
        )
        assert abs(full - matched) <= C + 1  # half a hidden unit


def test_noise_is_the_same_for_every_seed(variant):
    _, one = variant("random_key", 2)
    torch.manual_seed(99)
    other = build_fusion(variant("random_key", 2)[0], C)
    assert torch.equal(one.noise, other.noise)
    assert "noise" not in one.state_dict()


def test_an_mlp_without_a_channel_is_refused():
    """It would be found by the first step, which gives it no gradient."""
    with pytest.raises(ValueError, match="mlp_ratio=0 leaves no channel of 8"):
        mlp(8, 0)
