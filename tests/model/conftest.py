"""Random language models."""

import pytest
import torch

from keyseg.config import TokensConfig
from keyseg.data.prompts import add_tokens
from keyseg.model.backbones.llava import LlavaVlm, load_llava


@pytest.fixture
def make_vlm(llava_folder, shake):
    """A `LlavaVlm` in float64 on the random LLaVA, with KEY and SEG as its last two tokens."""

    def make(prepare=lambda llava: None, shaken=True, starts=(None, None), dropout=0.0, seed=0):
        torch.manual_seed(1)
        llava, processor = load_llava(llava_folder)
        prepare(llava)
        add_tokens(processor.tokenizer, TokensConfig())
        ids = processor.tokenizer.convert_tokens_to_ids(["[KEY]", "[SEG]"])
        vlm = LlavaVlm(
            llava.double(),
            new_tokens=ids,
            init_tokens=starts,
            seed=seed,
            rank=4,
            alpha=8,
            dropout=dropout,
            targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        )
        if shaken:
            shake(vlm)
        return vlm.eval(), processor.tokenizer

    return make


@pytest.fixture
def clip():
    """Two pictures as CLIP sees them (B, P, W)."""
    return torch.randn(2, 6, 128, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
