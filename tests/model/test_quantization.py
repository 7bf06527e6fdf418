"""`model.quantization=nf4`: bitsandbytes' own layers (training with them: tests/test_train.py)."""

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from keyseg.model.backbones.llava import load_llava
from keyseg.predict.export import export


@pytest.fixture(scope="module")
def llava(llava_folder):
    cpu = torch.device("cpu")
    return load_llava(llava_folder, dtype=torch.bfloat16, quantization="nf4", device=cpu)[0]


def test_the_language_model_alone_is_in_four_bits(llava):
    small = [n for n, m in llava.named_modules() if isinstance(m, Linear4bit)]
    assert len(small) == 7 * len(llava.model.language_model.layers)
    assert all("language_model.layers." in n for n in small)


def test_an_evaluation_before_training_leaves_the_gradients(llava):
    """bitsandbytes may pack the weights for inference: that form has no backward pass."""
    layer = llava.model.language_model.layers[0].mlp.up_proj
    x = torch.ones(2, layer.in_features, dtype=torch.bfloat16)
    with torch.no_grad():
        seen = layer.eval()(x)
    y = layer.train()(x.requires_grad_())
    torch.testing.assert_close(y, seen, rtol=0.02, atol=0.02)
    y.sum().backward()
    assert x.grad.abs().max() > 0


def test_an_export_is_whole(make_finished, tmp_path):
    """Nothing can be merged into 4 bits, so the base is read again."""
    run = make_finished("model.quantization=nf4")
    folder = export(run, tmp_path / "model", "bf16")
    exported, _ = load_llava(folder / "llava")
    assert not any(isinstance(m, Linear4bit) for m in exported.modules())
