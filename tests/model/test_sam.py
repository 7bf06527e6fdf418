"""SAM's parts against segment_anything itself, on random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide
from torch.nn import functional as F

from keyseg.model.backbones.sam import (
    MaskHead,
    WeightsError,
    build_sam,
    load_sam,
    preprocess,
)
from keyseg.model.resample import Frame, at_decoder, drawn, resized, to_original
from keyseg.tiny.arch import SAM_SIZES

SIDE, CHANNELS, GRID = 128, 64, 16
FRAME = Frame(SIDE)
SIZES = [(128, 128), (96, 128), (128, 70), (333, 500), (1000, 70), (31, 64), (600, 401)]


@pytest.fixture(scope="module")
def sam(sam_folder):
    return load_sam(sam_folder, "folder")


@pytest.fixture(scope="module")
def head(sam_folder):
    return MaskHead(load_sam(sam_folder, "folder"))


@pytest.mark.parametrize("prompts_each", [1, 3])
def test_mask_head_equals_the_mask_decoder_image_by_image(sam, head, prompts_each):
    """3 images with 2, 1 and 3 prompts: all at once here, one image at a time there."""
    rng = torch.Generator().manual_seed(3)
    images = torch.randn(3, CHANNELS, GRID, GRID, generator=rng)
    owner = torch.tensor([0, 0, 1, 2, 2, 2])
    prompts = torch.randn(6, prompts_each, CHANNELS, generator=rng)
    with torch.no_grad():
        drawn, expected, _ = head((images[owner],), prompts)
        _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        for image in range(3):
            theirs, quality = sam.mask_decoder(
                image_embeddings=images[image : image + 1],
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=prompts[owner == image],
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            torch.testing.assert_close(drawn[owner == image], theirs[:, 0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(expected[owner == image], quality[:, 0])
    assert drawn.shape == (6, 4 * GRID, 4 * GRID)
    assert drawn.std() > 0.01  # not equal for being constant
    assert expected.std() > 0


def test_images_and_prompts_must_go_together(head):
    with pytest.raises(AssertionError, match="2 images for 3 prompts"):
        head((torch.zeros(2, CHANNELS, GRID, GRID),), torch.zeros(3, 1, CHANNELS))


def test_idle_parts_are_frozen_and_all_others_get_a_gradient(sam_folder):
    head = MaskHead(load_sam(sam_folder, "folder"))
    images, prompts = torch.randn(2, CHANNELS, GRID, GRID), torch.randn(2, 1, CHANNELS)
    head((images,), prompts)[0].square().mean().backward()
    frozen, pulled, still = set(), set(), set()
    for name, p in head.named_parameters():
        if not p.requires_grad:
            frozen.add(".".join(name.split(".")[:3]))
        elif p.grad is not None and p.grad.any():
            pulled.add(name)
        else:
            still.add(name)
    wanted = {f"decoder.output_hypernetworks_mlps.{k}" for k in (1, 2, 3)}
    assert {n for n in frozen if "hypernetworks" in n} == wanted
    rest = {n for n in frozen if "hypernetworks" not in n}
    assert {n.split(".")[1] for n in rest} == {"iou_prediction_head"}
    # a shift of all keys changes no softmax: their biases have no gradient but rounding
    assert {n.rpartition(".")[2] for n in still} <= {"bias"}
    assert all("k_proj" in n for n in still)
    assert pulled


def test_the_prompt_encoder_is_copied_not_shared(sam_folder):
    """The head's buffers are constants: not trained, not saved, and not in the state dict."""
    sam = load_sam(sam_folder, "folder")
    head = MaskHead(sam)
    assert not any("no_mask" in k or "image_pe" in k for k in head.state_dict())
    before = head.no_mask.clone()
    with torch.no_grad():
        sam.prompt_encoder.no_mask_embed.weight.add_(1)
    assert torch.equal(head.no_mask, before)


@pytest.mark.parametrize("size", SIZES)
def test_to_original_is_sams_postprocessing(sam, size):
    logits = torch.randn(2, 4 * GRID, 4 * GRID)
    theirs = sam.postprocess_masks(logits[:, None], resized(*size, SIDE), size)[:, 0]
    assert theirs.shape == (2, *size)
    torch.testing.assert_close(to_original(logits, FRAME, size), theirs)
    differs = drawn(logits, FRAME, size).transpose(1, 2) != (theirs > 0)
    assert differs.sum() <= 1e-5 * theirs.numel()  # a logit that is 0 but for rounding
    assert drawn(logits.bfloat16(), FRAME, size).shape == (2, size[1], size[0])


@pytest.mark.parametrize("size", SIZES)
def test_at_the_decoder_a_target_lies_where_its_logits_do(size):
    """A mask drawn at the decoder's size and brought to the image's own comes back as it was."""
    height, width = (-(-n // 2) for n in resized(*size, SIDE))
    logits = torch.full((1, 4 * GRID, 4 * GRID), -1.0)
    logits[0, height // 4 : height, width // 3 : width // 2] = 1.0
    target = (to_original(logits, FRAME, size) > 0).byte()
    small, at_small = at_decoder(logits, target, FRAME)
    assert small.shape == at_small.shape == (1, height, width)
    wrong = (small > 0) != (at_small == 1)
    assert wrong.sum() <= height + width  # its outline may move by a pixel
    assert at_small.any()
    _, void = at_decoder(logits, torch.full((1, *size), 255, dtype=torch.uint8), FRAME)
    assert (void == 255).all()


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_of_segment_anything(size):
    for side in (SIDE, 1024):
        assert resized(*size, side) == ResizeLongestSide.get_preprocess_shape(*size, side)


@pytest.mark.parametrize("size", SIZES)
def test_preprocess_resizes_the_longest_side_and_pads(sam, size):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8))
    out = preprocess(SIDE, image)
    height, width = ResizeLongestSide.get_preprocess_shape(*size, SIDE)
    small = ResizeLongestSide(SIDE).apply_image(image.permute(1, 2, 0).numpy())
    normal = (torch.from_numpy(small).permute(2, 0, 1) - sam.pixel_mean) / sam.pixel_std
    wanted = F.pad(normal, (0, SIDE - width, 0, SIDE - height))
    assert out.shape == (3, SIDE, SIDE)
    grey = 1 / float(sam.pixel_std.min())  # theirs is rounded to whole grey levels
    torch.testing.assert_close(out, wanted, rtol=0, atol=1.01 * grey)
    assert max(height, width) == SIDE
    assert not out[:, height:].any()
    assert not out[:, :, width:].any()


def test_a_picture_of_the_right_size_is_only_normalised(sam):
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(preprocess(SIDE, image), sam.preprocess(image[None].float())[0])


def test_loading_gives_the_saved_weights_in_float32(sam_folder, tmp_path):
    state = load_file(sam_folder / "model.safetensors")
    (tmp_path / "config.json").write_text((sam_folder / "config.json").read_text())
    save_file({k: v.bfloat16() for k, v in state.items()}, tmp_path / "model.safetensors")
    for name, value in load_sam(tmp_path, "folder").state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[name].bfloat16().float())


@pytest.fixture
def small_public_type(monkeypatch):
    """A public type's file is read as always; only the network is small."""
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: build_sam(SAM_SIZES))


def test_public_checkpoint(small_public_type, sam_folder, tmp_path):
    state = load_file(sam_folder / "model.safetensors")
    torch.save(state, tmp_path / "sam.pth")
    loaded = load_sam(tmp_path / "sam.pth", "vit_b").state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())
    assert len(loaded) == len(state)


@pytest.fixture
def copy(sam_folder, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((sam_folder / file).read_bytes())
    return tmp_path


def test_missing_weights(tmp_path):
    with pytest.raises(WeightsError, match=r"not found: .*model\.safetensors\. Set model\.sam"):
        load_sam(tmp_path, "folder")
    with pytest.raises(WeightsError, match=r"not found: .*none\.pth\. Get vit_h from https://"):
        load_sam(tmp_path / "none.pth", "vit_h")


def test_unknown_type(copy):
    with pytest.raises(WeightsError, match=r"sam_type=vit_x: must be one of folder, .*vit_h"):
        load_sam(copy, "vit_x")


def test_missing_and_surplus_keys_are_named(copy):
    state = load_file(copy / "model.safetensors")
    state["no.such.weight"] = state.pop("mask_decoder.iou_token.weight")
    save_file(state, copy / "model.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit model\.sam_type=folder") as caught:
        load_sam(copy, "folder")
    for told in ("no.such.weight", "mask_decoder.iou_token.weight", "model.safetensors", "keyseg"):
        assert told in str(caught.value)


def test_wrong_size(copy):
    sizes = json.loads((copy / "config.json").read_text()) | {"prompt_dim": 32}
    (copy / "config.json").write_text(json.dumps(sizes))
    with pytest.raises(WeightsError, match=r"model\.safetensors does not fit .*size mismatch"):
        load_sam(copy, "folder")


@pytest.mark.parametrize("config", [None, "{", "{}", "[]"])
def test_broken_config(copy, config):
    (copy / "config.json").unlink()
    if config is not None:
        (copy / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=r"does not fit .*Set model\.sam"):
        load_sam(copy, "folder")


@pytest.mark.parametrize("content", [b"", b"no tensors here", b"\x80\x02]."])
def test_broken_files(copy, small_public_type, content):
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"does not fit .*Set model\.sam"):
        load_sam(copy, "folder")
    (copy / "sam.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"sam\.pth does not fit .*Get vit_b from"):
        load_sam(copy / "sam.pth", "vit_b")


class Malicious:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"weight": m}])
def test_no_code_in_a_checkpoint_is_run(tmp_path, small_public_type, wrap):
    trap, file = tmp_path / "trap", tmp_path / "sam.pth"
    torch.save(wrap(Malicious(trap)), file)
    torch.load(file, weights_only=False)
    assert trap.exists()  # the trap works
    trap.unlink()
    with pytest.raises(WeightsError, match=r"sam\.pth does not fit .*Get vit_b") as caught:
        load_sam(file, "vit_b")
    assert not trap.exists()
    assert "weights_only" not in str(caught.value)  # torch's advice: run it all the same


@pytest.mark.slow
def test_vit_b_at_full_size_from_a_public_file(tmp_path):
    """Written as the public file is, read with every key, and drawn with on one image.

    The encoder is segment_anything's own module, so its pass in `Sam.forward` serves both sides;
    without its blocks, which take most of the time.
    """
    torch.manual_seed(0)
    state = sam_model_registry["vit_b"]().state_dict()
    torch.save(state, tmp_path / "sam_vit_b.pth")
    sam = load_sam(tmp_path / "sam_vit_b.pth", "vit_b")
    loaded = sam.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    del loaded, state
    sam.image_encoder.blocks = torch.nn.ModuleList()

    image = torch.randint(0, 256, (3, 768, 1024), dtype=torch.uint8)
    point = (torch.tensor([[[500.0, 300.0]]]), torch.ones(1, 1))
    passed = []
    sam.image_encoder.register_forward_hook(lambda module, given, out: passed.extend([*given, out]))
    asked = {"image": image.float(), "original_size": (768, 1024)}
    asked |= {"point_coords": point[0], "point_labels": point[1]}
    theirs = sam([asked], multimask_output=False)[0]
    pixels, embedding = passed
    torch.testing.assert_close(preprocess(1024, image)[None], pixels)
    with torch.no_grad():
        sparse, _ = sam.prompt_encoder(points=point, boxes=None, masks=None)
        logits, expected, _ = MaskHead(sam)((embedding,), sparse)
    low = theirs["low_res_logits"][0]
    torch.testing.assert_close(logits, low, rtol=1e-4, atol=1e-4 * float(low.abs().max()))
    torch.testing.assert_close(expected, theirs["iou_predictions"][0], rtol=1e-4, atol=1e-5)
    mine = to_original(logits, Frame(1024), (768, 1024))[0]
    assert ((mine > 0) == theirs["masks"][0, 0]).float().mean() > 0.999
    assert logits.shape == (1, 256, 256)
    assert low.std() > 0.01
