"""A trained model in the formats of transformers and segment_anything: LoRA merged, tokens added.

DIR/README.md            model card: what it is, its scores, how to load it
DIR/llava/               the language side (by its family: qwen3_vl/, ...) as transformers reads it,
                         and its processor; KEY and SEG are words
DIR/sam.pth              segment_anything's Sam with the trained mask decoder (or sam/, where
                         it is of no public size, or another that transformers reads)
DIR/keyseg.safetensors   fusion, projections and keyword head
DIR/keyseg.json          prompt, tokens and the fusion's class: what predict.py needs
DIR/predict.py           asks it, with nothing but those libraries and the fusion's class
DIR/config.yaml          of the run
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from keyseg.config import ConfigError, RunConfig
from keyseg.data.example import several_targets
from keyseg.data.prompts import Conversation, asked, new_tokens
from keyseg.data.templates import IMAGE_TOKEN
from keyseg.model.backbones import damage
from keyseg.model.backbones.sides import DTYPES
from keyseg.predict import exported_script
from keyseg.predict.model_card import card
from keyseg.predict.predictor import load_model, refuse_controls
from keyseg.runs import packages
from keyseg.runs.run_directory import RunDirectory
from keyseg.train.build import Parts

_HEAD = ("fusion.", "seg_projection.", "key_projection.", "context_projection.", "keyword_head.")


def export(run: RunDirectory, folder: Path, dtype: str | None = None) -> Path:
    """Write the model of a run; `folder` appears whole, or not at all.

    Args:
        run: finished.
        folder: must not exist, or be empty.
        dtype: of the language side's weights: fp32, bf16 or fp16; None = as the run kept them. All
            else is fp32.

    Raises:
        ConfigError: `folder` holds something, its disk has too little space, or the run's base was
            random.
        WeightsError: a backbone, or the run's own file, is missing or does not fit.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something already; give another folder")
    if run.config.model.init == "random":
        raise ConfigError(f"run {run.path} has model.init=random: it has no base to be merged into")
    # 4-bit weights cannot be merged into: the base is read whole
    cfg = replace(run.config, model=replace(run.config.model, quantization="none"))
    parts = load_model(cfg, run.best_file, torch.device("cpu"))
    refuse_controls(parts)
    dtype = dtype or (cfg.model.precision if cfg.model.frozen == "precision" else "fp32")
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        _check_space(parts.model, DTYPES[dtype], aside)
        head = {k: v for k, v in parts.model.state_dict().items() if k.startswith(_HEAD)}
        talk = parts.conversation
        # the keyword head's table is the pre-trained one, in which KEY and SEG are untrained
        if (words := parts.model.keyword_head) is not None:
            if cfg.loss.keyword.table == "frozen" and not parts.model.vlm.whole_tables:
                head["keyword_head.new_rows"] = words.table[new_ids(talk)]
            else:  # the language side has another one
                head["keyword_head.table"] = words.table.detach()
        save_file(  # copies: SEG and KEY may share a projection
            {k: v.float().contiguous().clone() for k, v in head.items()},
            aside / "keyseg.safetensors",
        )
        about = _about(cfg, parts) | parts.mask.save(parts.model.mask_head, aside)
        added = new_tokens(cfg.model.tokens)
        about |= parts.language.save(parts.model.vlm, aside, added, DTYPES[dtype])
        (aside / "keyseg.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        shutil.copyfile(exported_script.__file__, aside / "predict.py")
        (aside / "README.md").write_text(card(run.config, run.info, about, dtype))
        shutil.copyfile(run.config_file, aside / "config.yaml")
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _check_space(model: nn.Module, dtype: torch.dtype, folder: Path) -> None:
    """Raises ConfigError before anything large is written."""
    needed = 1.2 * sum(p.numel() for p in model.parameters()) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, the export needs about "
            f"{needed / 1e9:.1f} GB: give a folder on another disk, or --dtype bf16"
        )


def _about(cfg: RunConfig, parts: Parts) -> dict[str, Any]:
    """keyseg.json, but for what the sides say."""
    talk, tokens = parts.conversation, cfg.model.tokens
    before, _, after = cfg.prompt.user.partition(IMAGE_TOKEN)
    # as Conversation.question puts them together
    ask = (after + cfg.prompt.assistant).replace("{question}", "\0")
    forms = {
        "phrase": asked(cfg.prompt, False, test=True)[0],
        "sentence": asked(cfg.prompt, True, test=True)[0],
    }
    options = {k: v for k, v in cfg.fusion.items() if k != "name"}
    if "match" in options:
        options["beside"] = getattr(parts.model.fusion, "beside", 0)
    return {
        "head": cfg.prompt.system + before,
        **{kind: ask.replace("\0", form).rstrip() for kind, form in forms.items()},
        "key_id": talk.key_id,
        "seg_id": talk.seg_id,
        "rej_id": talk.rej_id,
        "object_threshold": cfg.evaluation.object_threshold if talk.scored else None,
        "new_ids": new_ids(talk),
        "n_keys": tokens.n_keys,
        "key_first": tokens.order == "key_first",
        "several_masks": several_targets(cfg.data),
        "reads_state_before_token": int(tokens.state == "previous"),
        "points": asdict(cfg.model.points) if cfg.model.points.count else None,
        "max_new_tokens": cfg.evaluation.max_new_tokens,
        "similarity": cfg.loss.keyword.similarity,
        "temperature": cfg.loss.keyword.temperature,
        "needs": _needs(cfg),
        "fusion": {**options, "dim": parts.model.dim, "n_keys": tokens.n_keys},
    }


def new_ids(talk: Conversation) -> list[int]:
    """Ids of the new tokens."""
    return [i for i in (talk.key_id, talk.seg_id, talk.rej_id) if i is not None]


def _needs(cfg: RunConfig) -> list[str]:
    """Packages of the language side, and with the fusion's class, beside keyseg; with versions."""
    own = str(cfg.fusion["_target_"]).partition(".")[0]
    return damage.needed(str(cfg.model.language["_target_"])) + [
        f"{package.name}=={package.version}" if package.version else package.name
        for package in packages.of(cfg)
        if package.name == own
    ]
