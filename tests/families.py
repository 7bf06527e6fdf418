"""Families of backbones at tiny random sizes, as transformers saves them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from keyseg.config import RunConfig
from keyseg.model.backbones.internvl import InternVl
from keyseg.model.backbones.llava_onevision import LlavaOnevision
from keyseg.model.backbones.qwen_vl import Qwen3Vl, Qwen25Vl
from keyseg.model.backbones.sam2 import Sam2, Sam3Tracker
from keyseg.model.backbones.sam_hq import SamHq
from keyseg.model.backbones.smolvlm import SmolVlm

_TEXT: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}
_VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}

LANGUAGES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "qwen2_5_vl": (
        Qwen25Vl,
        {
            "text": {**_TEXT, "rope_parameters": _ROPE, "tie_word_embeddings": True},
            "vision": {
                **_VISION,
                "patch_size": 14,
                "window_size": 56,
                "fullatt_block_indexes": [1],
                "out_hidden_size": 32,
            },
        },
        {"size": {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 12}},
    ),
    "qwen3_vl": (
        Qwen3Vl,
        {
            "text": {
                **_TEXT,
                "head_dim": 8,
                "rope_parameters": {**_ROPE, "mrope_interleaved": True},
            },
            "vision": {
                **_VISION,
                "patch_size": 16,
                "out_hidden_size": 32,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
            },
        },
        {"size": {"shortest_edge": 32 * 32 * 4, "longest_edge": 32 * 32 * 12}},
    ),
    "internvl": (
        InternVl,
        {
            "text": {**_TEXT, "tie_word_embeddings": True},
            "vision": {**_VIT, "image_size": [56, 56], "patch_size": [14, 14]},
        },
        {},
    ),
    "smolvlm": (
        SmolVlm,
        {
            "text": {**_TEXT, "pad_token_id": 3},
            "vision": _VIT,
            "scale_factor": 2,
        },
        {"size": {"longest_edge": 112}},
    ),
    "llava_onevision": (
        LlavaOnevision,
        {
            "text": _TEXT,
            "vision": _VIT,
            "tiles": [[56, 112], [112, 56], [112, 112]],
        },
        {},
    ),
}
"""By name: its class, sizes, and how large images are read."""

_DECODER = {"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 32}

MASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sam2": (
        Sam2,
        {
            "vision_config": {
                "backbone_config": {
                    "model_type": "sam2_hiera_det_model",
                    "hidden_size": 8,
                    "image_size": [128, 128],
                    "blocks_per_stage": [1, 2, 2, 1],
                    "embed_dim_per_stage": [8, 16, 32, 64],
                    "num_attention_heads_per_stage": [1, 1, 2, 2],
                    "window_size_per_stage": [4, 4, 4, 2],
                    "global_attention_blocks": [4],
                },
                "backbone_channel_list": [64, 32, 16, 8],
                "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
                "fpn_hidden_size": 32,
            },
            "prompt_encoder_config": {"hidden_size": 32, "image_size": 128},
            "mask_decoder_config": _DECODER,
        },
    ),
    "sam_hq": (
        SamHq,
        {
            "vision_config": {
                "hidden_size": 16,
                "output_channels": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 128,
                "initializer_range": 0.02,
                "window_size": 4,
                "global_attn_indexes": [1],
                "num_pos_feats": 16,
            },
            "prompt_encoder_config": {"hidden_size": 32, "image_size": 128},
            "mask_decoder_config": {**_DECODER, "vit_dim": 16},
        },
    ),
    "sam3_tracker": (
        Sam3Tracker,
        {
            "vision_config": {
                "backbone_config": {
                    "model_type": "sam3_vit_model",
                    "hidden_size": 32,
                    "intermediate_size": 48,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "image_size": 112,
                    "patch_size": 14,
                    "window_size": 4,
                    "global_attn_indexes": [1],
                    "pretrain_image_size": 112,
                },
                "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
                "fpn_hidden_size": 32,
            },
            "prompt_encoder_config": {"hidden_size": 32, "image_size": 112, "patch_size": 14},
            "mask_decoder_config": _DECODER,
        },
    ),
}
"""By name: its class and the arguments of its config."""


def language_folder(name: str, folder: Path) -> Path:
    """Random weights and a processor of bytes."""
    side, sizes, _ = LANGUAGES[name]
    config, processor = side.from_sizes(sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def mask_folder(name: str, folder: Path) -> Path:
    """Random weights."""
    side, sizes = MASKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        side.model(side.config(**sizes)).save_pretrained(folder)
    return folder


def with_sides(
    cfg: RunConfig, folders: Mapping[str, Path], language: str = "llava", mask: str = "sam"
) -> RunConfig:
    """A config with sides of these families, whose weights lie in folders; no start words."""
    cfg.model.tokens.key_init = cfg.model.tokens.seg_init = None
    if language != "llava":
        side, _, view = LANGUAGES[language]
        cfg.model.language = {
            "_target_": f"{side.__module__}.{side.__name__}",
            "weights": str(folders[language]),
            "view": view,
        }
    if mask != "sam":
        drawn = MASKS[mask][0]
        cfg.model.mask = {"_target_": f"{drawn.__module__}.{drawn.__name__}"}
        cfg.model.sam = str(folders[mask])
    return cfg
