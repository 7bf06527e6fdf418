"""Every family of backbones at a tiny random size, from files as transformers writes them."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from keyseg.config import ModelConfig
from keyseg.data.mix import ImageSampler, groups, load_splits
from keyseg.data.prefix import Prefix
from keyseg.model.backbones.encoders import joined
from keyseg.model.fusion import OTHER
from keyseg.model.manifest import trainable
from keyseg.model.packing import pack
from keyseg.predict.export import export
from keyseg.predict.exported_script import Exported
from keyseg.predict.predictor import Predictor, _example
from keyseg.runs.run_directory import RunDirectory
from keyseg.train.build import build, with_others
from keyseg.train.evaluate import evaluate
from keyseg.train.trainer import Trainer
from tests.families import LANGUAGES, MASKS, language_folder, mask_folder, with_sides

CPU = torch.device("cpu")
FUSIONS = ("full", "seg_only", "cross", "self", "shuffled_key")
PAIRS = [(language, mask) for language in ("llava", *LANGUAGES) for mask in ("sam", *MASKS)][1:]
CELLS = [(*pair, FUSIONS[n % len(FUSIONS)]) for n, pair in enumerate(PAIRS)]
"""Every pair of sides but today's two, with a fusion in turn."""
EACH = [(language, "sam2", "full") for language in LANGUAGES]
EACH += [("llava", mask, "full") for mask in MASKS]
"""Every side once."""
SHORT = (
    "model.precision=fp32",
    "optim.steps=2",
    "optim.warmup=0",
    "optim.eval_every=2",
    "optim.checkpoint_every=1",
    "runtime.log_every=1",
    "evaluation.max_new_tokens=4",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where each family's weights are."""
    there = tmp_path_factory.mktemp("families")
    found = {name: language_folder(name, there / name) for name in LANGUAGES}
    return found | {name: mask_folder(name, there / name) for name in MASKS}


@pytest.fixture(scope="module")
def cell(small_run, folders):
    """The config of a language side, a mask side and a fusion."""

    def make(language, mask, fusion="full", *overrides):
        cfg = small_run(f"fusion={fusion}", *SHORT, *overrides)
        return with_sides(cfg, folders, language, mask)

    return make


def parts_of(cfg, splits):
    torch.manual_seed(cfg.seed)
    parts = build(cfg, CPU)
    if parts.model.fusion.uses_key and parts.model.fusion.key_from == OTHER:
        parts = with_others(parts, *([e for s in split for e in s.examples] for split in splits))
    return parts


def trained(cfg, folder):
    """Values of two steps; goes on where `folder` has a checkpoint."""
    splits = load_splits(cfg.data)
    parts = parts_of(cfg, splits)
    folder.mkdir(exist_ok=True)
    trainer = Trainer(parts, ImageSampler(splits[0], cfg.seed, 2, 2), cfg, folder)
    return parts, trainer, splits


@pytest.mark.parametrize(("language", "mask", "fusion"), CELLS)
def test_every_pair_trains_two_steps(cell, tmp_path, language, mask, fusion):
    """Each trained module gets a gradient (`assert_trained`), and every loss is finite."""
    _, trainer, _ = trained(cell(language, mask, fusion), tmp_path / "run")
    values = {f"{v.name} {v.step}": v.value for v in trainer.fit(lambda: {"giou": 0.0})}
    assert 0 < values["train/loss 2"] < values["train/loss 1"] * 2
    assert (tmp_path / "run/best.safetensors").exists()
    assert trainer.parts.features.store is not None


@pytest.mark.parametrize(("language", "mask", "fusion"), EACH)
def test_many_expressions_behind_one_prefix_equal_each_alone(cell, shake, language, mask, fusion):
    """Masks, words and gradients, in float64."""
    cfg = cell(language, mask, fusion, "model.attention=sdpa")
    splits = load_splits(cfg.data)
    parts = parts_of(cfg, splits)
    shake(parts.model)
    parts.model.double().eval()
    images = groups(e for s in splits[0] for e in s.examples)[:2]
    images = [replace(g, examples=g.examples[:3]) for g in images]
    assert len(images[0].examples) > 1

    def run(chosen):
        batch = parts.collator(chosen)
        batch = replace(batch, features=batch.features.to(torch.float64))
        output = parts.model(batch)
        total = output.mask_logits.sin().sum() + output.text_logits.sin().sum()
        pulled = list(trainable(parts.model).values())
        gradients = torch.autograd.grad(total, pulled, allow_unused=True)
        return output.mask_logits.detach(), [0 if g is None else g for g in gradients]

    masks, gradients = run(images)
    alone = [run([replace(g, examples=[e])]) for g in images for e in g.examples]
    apart = [(masks - torch.cat([mask for mask, _ in alone])).abs().max() / masks.abs().max()]
    pairs = [
        (mine, sum(others))
        for mine, *others in zip(gradients, *(g for _, g in alone), strict=True)
        if isinstance(mine, torch.Tensor)
    ]
    largest = max(float(whole.abs().max()) for _, whole in pairs)
    apart += [(mine - whole).abs().max() / largest for mine, whole in pairs]
    far = [float(difference) for difference in apart]
    print(f"{language} {mask}: masks {far[0]:.0e}, gradients {max(far[1:]):.0e}")  # for docs
    assert far[0] < 1e-6
    assert max(far[1:]) < 1e-4  # norms and softmax are float32 inside
    assert masks.std() > 0


@pytest.mark.parametrize(("language", "mask", "fusion"), EACH)
def test_a_run_goes_on_where_it_was_stopped_and_answers(cell, tmp_path, language, mask, fusion):
    """Resumed: the same weights bit for bit, from features that are kept. Generated: rows for all
    examples. Asked: a mask."""
    cfg = cell(language, mask, fusion)
    _, whole, splits = trained(cfg, tmp_path / "whole")
    list(whole.fit(lambda: {"giou": 0.0}))
    wanted = {k: v.clone() for k, v in trainable(whole.model).items()}
    _, first, _ = trained(cfg, tmp_path / "half")
    with pytest.raises(Exception, match="stopped at step 1"):
        list(first.fit(lambda: {"giou": 0.0}, stop=lambda: True))
    parts, second, _ = trained(cfg, tmp_path / "half")
    assert second.resume() == 1
    list(second.fit(lambda: {"giou": 0.0}))
    assert not any(encoder.is_loaded for encoder in parts.features.encoders), "all was kept"
    assert all(torch.equal(v, wanted[k]) for k, v in trainable(second.model).items())
    images = groups(e for s in splits[2] for e in s.examples)[:2]
    rows = list(evaluate(parts, images, cfg, "generated"))
    assert len(rows) == sum(len(g.examples) for g in images)
    predictor = Predictor(cfg, tmp_path / "half/best.safetensors", CPU)
    [prediction] = predictor(images[0].image, ["the red ball"], "teacher_forced")
    assert prediction.mask.shape == (128, 128)
    assert prediction.predicted_iou is not None


SCORE = "model.tokens.no_target=score"
EXPORTED = [
    ("qwen2_5_vl", "sam2", ()),
    ("qwen3_vl", "sam_hq", ("prompt=chatml",)),
    (
        "internvl",
        "sam3_tracker",
        ("model.tokens.no_target=score", "evaluation.object_threshold=-9"),
    ),
    ("llava_onevision", "sam", ("model.tokens.state=previous",)),
    ("llava", "sam2", ("model.clip_view=pad",)),
    ("smolvlm", "sam_hq", ("prompt=smolvlm",)),
]
"""Every side once, each with something else that predict.py has to know."""


@pytest.mark.parametrize(("language", "mask", "options"), EXPORTED)
def test_an_export_draws_what_the_run_draws(cell, shake, tmp_path, language, mask, options):
    """By plain transformers, on a picture that is no square: words, mask, and what is written."""
    cfg = cell(language, mask, "full", *options)
    torch.manual_seed(0)
    parts = build(cfg, CPU)
    shake(parts.model)
    run = RunDirectory.create(tmp_path / "run", cfg)
    save_file(
        {k: v.detach().contiguous() for k, v in trainable(parts.model).items()}, run.best_file
    )
    folder = export(run, tmp_path / "export")
    card = (folder / "README.md").read_text()
    assert ("segment-anything" in card, "num2words" in card) == (
        mask == "sam",
        language == "smolvlm",
    )
    noise = torch.randint(0, 256, (90, 130, 3), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save(tmp_path / "picture.png")
    query = "the red ball"
    predictor, exported = Predictor(cfg, run.best_file, CPU), Exported(folder)
    [wanted] = predictor(tmp_path / "picture.png", [query], "teacher_forced")
    talk = predictor.parts.conversation
    turn = talk.turn(_example(tmp_path / "picture.png", query))
    with Image.open(tmp_path / "picture.png") as picture:
        found = exported(picture, query, turn.ids[turn.answer :])
        written = exported(picture, query)
    assert [word for word, _ in found.words] == [word for word, _ in wanted.words]
    assert [p for _, p in found.words] == pytest.approx([p for _, p in wanted.words], abs=1e-3)
    assert found.mask.shape == wanted.mask.shape
    assert 0.01 < wanted.mask.mean() < 0.99
    assert (found.mask == wanted.mask).mean() > 0.999
    assert found.iou == pytest.approx(wanted.predicted_iou, abs=1e-3)
    [own] = predictor(tmp_path / "picture.png", [query], "generated")
    assert written.text == own.answer
    if exported.about["object_threshold"] is not None:
        exported.about["object_threshold"] = 9.0
        with Image.open(tmp_path / "picture.png") as picture:
            none = exported(picture, query, turn.ids[turn.answer :])
        assert (none.masks, none.iou, none.mask.any()) == ([], None, False)


@pytest.fixture(scope="module")
def reading(folders):
    """A language side, an adapted model in float64, and what it sees of two pictures."""

    def make(name):
        side, _, view = LANGUAGES[name]
        spec = {"_target_": "", "weights": str(folders[name]), "view": view}
        choice = ModelConfig(name=name, sam="", sam_type="", language=spec)
        seeing = side.load(choice, torch.float32, CPU, "vision")
        encoder = seeing.encoder().eval()
        assert sum(p.numel() for p in encoder.parameters()) == seeing.encoder_size()
        rng = torch.Generator().manual_seed(0)
        pictures = [
            torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=rng)
            for size in ((96, 128), (150, 70))
        ]
        with torch.no_grad():
            seen = [tuple(t.double() for t in encoder(**seeing.pixels(p))) for p in pictures]
        language = side.load(choice, torch.float32, CPU, "language")
        language.tokenizer.add_tokens(["[KEY]", "[SEG]"])
        ids = language.tokenizer.convert_tokens_to_ids(["[KEY]", "[SEG]"])
        vlm = language.adapted(
            new_tokens=ids,
            init_tokens=[None, None],
            seed=0,
            rank=2,
            alpha=4,
            dropout=0.0,
            targets=["q_proj", "v_proj"],
        )
        return language, vlm.double().eval(), [p.shape[1:] for p in pictures], seen

    return make


@pytest.mark.parametrize("name", LANGUAGES)
def test_an_image_has_as_many_places_as_tokens_whatever_its_size(reading, shake, name):
    """And positions are those of the family's own function, where images turn them."""
    language, vlm, sizes, seen = reading(name)
    image = language.model.config.image_token_id
    places = [language.places(tuple(size)) for size in sizes]
    assert [p.ids.count(image) for p in places] == [len(levels[0]) for levels in seen]
    own = getattr(language.model.model, "get_rope_index", None)
    for size, place in zip(sizes, places, strict=True) if own else ():
        made = language._processed(tuple(size))
        kinds, grid = made["mm_token_type_ids"], made["image_grid_thw"]
        theirs, moved = own(made["input_ids"], mm_token_type_ids=kinds, image_grid_thw=grid)
        assert theirs[:, 0].tolist() == place.positions
        assert int(moved) + len(place.ids) == place.end
    shake(vlm)
    head = Prefix.of(language.tokenizer("look ")["input_ids"])
    prefixes = [head.then(place) for place in places]
    asked, image_of = [[40, 41], [50, 51, 52, 53], [70]], torch.tensor([0, 0, 1])
    answers = vlm.generate(prefixes, asked, joined(seen), image_of, 4, pad=0, eos=2)
    packed, starts = pack(prefixes, [asked[:2], asked[2:]], 0)
    states = vlm(packed, joined(seen))
    begins = [(row, start) for row, row_starts in enumerate(starts) for start in row_starts]
    for question, answer, (row, begin) in zip(asked, answers, begins, strict=True):
        alone, [[first]] = pack([prefixes[row]], [[question]], 0)
        here = states[row, begin : begin + len(question)]
        there = vlm(alone, seen[row])[0, first:]
        torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-6)
        assert answer == greedy(vlm, prefixes[row], question, seen[row], 4)


def greedy(vlm, prefix, question, seen, limit):
    """By repeated full forward, without padding or cache."""
    ids, answer = list(question), []
    for _ in range(limit):
        packed, _ = pack([prefix], [[ids]], 0)
        scores = vlm.logits(vlm(packed, seen)[0, -1])
        scores[vlm.base.config.image_token_id] = -torch.inf
        token = int(scores.argmax())
        if token == 2:
            break
        ids.append(token)
        answer.append(token)
    return answer
