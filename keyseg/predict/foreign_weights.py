"""Weights of LISA's family as they were published: their files, and what each of their keys is.

Every key is used, or left out for a reason that is told; any other is an error. Read from the
public save and merge scripts: we had none of the files. No code in a file is run: safetensors, or
torch's files of tensors alone.

    LISA (v0, v1), merged      model.layers..., model.mm_projector, model.text_hidden_fcs,
                               model.visual_model (SAM)
    READ, SESAME               the same on LLaVA-1.5: a projector of two layers
    GSVA                       the same behind base_model.model., with LoRA apart
    KeySeg                     LISA's, and keyword_fusion, embedding_table_proj
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from keyseg.config import ConfigError

LANGUAGE_PART, PROJECTOR_PART, SAM_PART, SEG_PART, LORA_PART, FUSION_PART, TABLE_PART, UNUSED = (
    "language model",
    "projector",
    "SAM",
    "SEG's projection",
    "LoRA",
    "fusion of KEY",
    "projection of the keywords' table",
    "left out",
)
"""What a key may belong to."""

_KEYSEG_LAYERS = {
    FUSION_PART: tuple(
        f"{layer}.{kind}"
        for layer in ("value_proj", "out_proj", "mlp.0", "mlp.2")
        for kind in ("weight", "bias")
    ),
    TABLE_PART: ("weight", "bias"),
}
"""What KeySeg has beside LISA's layers, all of it or nothing."""

_ADDED_BY_KEYSEG = ("keyword_fusion.", "keyword_text_proj.", "embedding_table_proj.")
"""How the names begin by which it is known, those of its idle layers too."""

_UNMERGED = "base_model.model."


@dataclass(frozen=True)
class _Rule:
    """Keys of a form (all of the name), what they belong to, and their name there."""

    form: str
    part: str
    to: str = ""
    why: str = ""


_RULES = (
    _Rule(r"model\.(embed_tokens\.weight|norm\.weight)", LANGUAGE_PART, r"model.language_model.\1"),
    _Rule(
        r"model\.(layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj"
        r"|input_layernorm|post_attention_layernorm)\.weight)",
        LANGUAGE_PART,
        r"model.language_model.\1",
    ),
    _Rule(
        r"model\.(layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj))"
        r"\.base_layer\.weight",
        LANGUAGE_PART,
        r"model.language_model.\1.weight",
    ),
    _Rule(r"lm_head\.weight", LANGUAGE_PART, "lm_head.weight"),
    _Rule(
        r"model\.(layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj))"
        r"\.lora_([AB])\.default\.weight",
        LORA_PART,
        r"model.language_model.\1.weight \2",
    ),
    _Rule(r"model\.mm_projector\.(weight|bias)", PROJECTOR_PART, r"linear_1.\1"),
    _Rule(r"model\.mm_projector\.0\.(weight|bias)", PROJECTOR_PART, r"linear_1.\1"),
    _Rule(r"model\.mm_projector\.2\.(weight|bias)", PROJECTOR_PART, r"linear_2.\1"),
    _Rule(r"model\.text_hidden_fcs\.0\.([02]\.(?:weight|bias))", SEG_PART, r"\1"),
    _Rule(
        r"model\.visual_model\.((?:image_encoder|prompt_encoder|mask_decoder)\..+)", SAM_PART, r"\1"
    ),
    _Rule(
        r"keyword_fusion\.((?:value_proj|out_proj|mlp\.[02])\.(?:weight|bias))", FUSION_PART, r"\1"
    ),
    _Rule(r"embedding_table_proj\.(weight|bias)", TABLE_PART, r"\1"),
    _Rule(
        r"keyword_fusion\.(?:query_proj|key_proj)\..+",
        UNUSED,
        why="weighs KEY tokens, of which an answer has one",
    ),
    _Rule(
        r"keyword_fusion\.self_attn\..+",
        UNUSED,
        why="self-attention, whose result KeySeg's main run throws away",
    ),
    _Rule(r"keyword_fusion\.norm[12]\..+|keyword_text_proj\..+", UNUSED, why="never called there"),
    _Rule(r"model\.visual_model\.pixel_(?:mean|std)", UNUSED, why="SAM's colours, the same in all"),
    _Rule(
        r"model\.(?:layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
        UNUSED,
        why="follows from config.json",
    ),
    _Rule(
        r"model\.vision_tower\..+",
        UNUSED,
        why="CLIP, which they keep frozen: it is read from its own folder",
    ),
)


@dataclass(frozen=True)
class SortedTensors:
    """The keys of a folder by what they belong to: name there -> key of the file.

    `left_out`: reason -> number of keys. `unmerged`: whether LoRA lies apart.
    """

    parts: Mapping[str, Mapping[str, str]]
    left_out: Mapping[str, int]

    @property
    def unmerged(self) -> bool:
        """Whether LoRA is still apart from the weights that it adapts."""
        return bool(self.parts[LORA_PART])

    @property
    def of_keyseg(self) -> bool:
        """Whether it is KeySeg's: LISA's layers, and a fusion of KEY."""
        return bool(self.parts[FUSION_PART])

    @property
    def projector_layers(self) -> int:
        """1 in LISA (LLaVA v1), 2 on LLaVA-1.5."""
        return sum(name.endswith(".weight") for name in self.parts[PROJECTOR_PART])


def sort(keys: Iterable[str], folder: Path) -> SortedTensors:
    """What each key is.

    Raises:
        ConfigError: a key that no rule knows, two for one place, or a part without any.
    """
    of_lisa = (LANGUAGE_PART, PROJECTOR_PART, SAM_PART, SEG_PART)
    parts: dict[str, dict[str, str]] = {p: {} for p in (*of_lisa, LORA_PART, *_KEYSEG_LAYERS)}
    left_out: dict[str, int] = {}
    unknown = []
    of_keyseg = False
    for key in keys:
        match = _rule(key.removeprefix(_UNMERGED))
        of_keyseg |= key.removeprefix(_UNMERGED).startswith(_ADDED_BY_KEYSEG)
        if match is None:
            unknown.append(key)
            continue
        rule, name = match
        if rule.part == UNUSED:
            left_out[rule.why] = left_out.get(rule.why, 0) + 1
        elif name in parts[rule.part]:
            raise ConfigError(f"{folder}: {key} and {parts[rule.part][name]} are one weight twice")
        else:
            parts[rule.part][name] = key
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ConfigError(
            f"{folder}: {', '.join(unknown[:3])}{more}: no key of LISA's family that is known "
            "(docs/backbones.md); nothing is guessed"
        )
    if of_keyseg:
        for part, names in _KEYSEG_LAYERS.items():
            if lost := [name for name in names if name not in parts[part]]:
                raise ConfigError(f"{folder} is KeySeg's, and lacks {lost[0]} of its {part}")
    for part in of_lisa:
        if not parts[part]:
            raise ConfigError(
                f"{folder} holds no weights of {part}: is it a merged folder of LISA's family? A "
                "LLaVA or SAM of its own is for model.llava and model.sam"
            )
    return SortedTensors(parts, left_out)


def _rule(key: str) -> tuple[_Rule, str] | None:
    for rule in _RULES:
        if match := re.fullmatch(rule.form, key):
            return rule, match.expand(rule.to)
    return None


class Files:
    """The tensors of a folder, read one by one."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError: there are no weights, a file is missing or damaged; names it."""
        self.folder = folder
        self._files: dict[str, Path] = {}
        self._opened: dict[Path, Callable[[str], Tensor]] = {}
        for file in self._listed():
            for key in self._keys(file):
                if key in self._files:
                    raise ConfigError(f"{key} is in {self._files[key]} and in {file}")
                self._files[key] = file

    def __iter__(self) -> Iterator[str]:
        """All keys."""
        return iter(self._files)

    def __getitem__(self, key: str) -> Tensor:
        """A tensor as it is in the file."""
        return self._opened[self._files[key]](key)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in set(self._files.values()))

    def _listed(self) -> list[Path]:
        for pattern in ("model*.safetensors", "pytorch_model*.bin", "*.bin"):
            index = next(self.folder.glob(f"{pattern.replace('*', '')}.index.json"), None)
            paths = sorted(self.folder.glob(pattern))
            if index is not None:
                named = sorted(set(_json(index).get("weight_map", {}).values()))
                if lost := [name for name in named if not (self.folder / name).is_file()]:
                    raise ConfigError(f"{self.folder}: {lost[0]} is missing, which {index} names")
                return [self.folder / name for name in named]
            if paths:
                return paths
        raise ConfigError(
            f"{self.folder} holds no weights: neither model*.safetensors nor pytorch_model*.bin"
        )

    def _keys(self, file: Path) -> list[str]:
        try:
            if file.suffix == ".safetensors":
                opened: Any = safe_open(file, framework="pt")
                self._opened[file] = opened.get_tensor
                return list(opened.keys())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a pickle's age: it is opened or it is not
                state = torch.load(
                    file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
                )
            if not isinstance(state, dict) or not all(
                isinstance(v, Tensor) for v in state.values()
            ):
                raise ValueError("no plain list of tensors")
            self._opened[file] = state.__getitem__
            return list(state)
        except (OSError, EOFError, ValueError, RuntimeError, SafetensorError) as error:
            raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
        except UnpicklingError as error:
            raise ConfigError(f"{file} is no plain file of tensors: it is not opened") from error


def config_of(folder: Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        ConfigError: there is none that can be read.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(f"{folder} holds no config.json: give the folder of a whole checkpoint")
    return _json(file)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    return content


def adapter_alpha(folder: Path) -> float | None:
    """Alpha of LoRA that lies apart, where peft's adapter_config.json is beside it."""
    file = folder / "adapter_config.json"
    alpha = _json(file).get("lora_alpha") if file.is_file() else None
    return None if alpha is None else float(alpha)


def merged(files: Files, keys: SortedTensors, part: str, alpha: float = 0.0) -> dict[str, Tensor]:
    """The tensors of a part by their names there; LoRA added to what it adapts.

    `alpha`: of LoRA that lies apart: W + alpha / r * B A.

    Raises:
        ConfigError: half of a pair of LoRA's factors, or one without a weight to add it to.
    """
    state = {name: files[key] for name, key in keys.parts[part].items()}
    if part != LANGUAGE_PART:
        return state
    for name in {name.partition(" ")[0] for name in keys.parts[LORA_PART]}:
        pair = [keys.parts[LORA_PART].get(f"{name} {factor}") for factor in "AB"]
        if name not in state or None in pair:
            raise ConfigError(f"{files.folder}: LoRA of {name} is not whole")
        a, b = (files[str(key)].float() for key in pair)
        own = state[name]
        state[name] = (own.float() + alpha / a.shape[0] * (b @ a)).to(own.dtype)
    return state


def sam_sizes(state: Mapping[str, Tensor], folder: Path) -> dict[str, Any]:
    """The sizes of a SAM (`keyseg.model.backbones.sam.build_sam`) from its shapes.

    Raises:
        ConfigError: a weight that shows them is missing.
    """
    try:
        patch = state["image_encoder.patch_embed.proj.weight"]
        places = state["image_encoder.pos_embed"]
        depth = _count(state, r"image_encoder\.blocks\.(\d+)\.attn\.qkv\.weight")
        relative = [state[f"image_encoder.blocks.{i}.attn.rel_pos_h"] for i in range(depth)]
        side = int(places.shape[1])
        whole = 2 * side - 1
        windows = {int(r.shape[0] + 1) // 2 for r in relative if r.shape[0] != whole}
        dim = int(state["mask_decoder.mask_tokens.weight"].shape[1])
        first = "mask_decoder.transformer.layers.0"
        inner = state[f"{first}.mlp.lin1.weight"].shape[0]
        return {
            "image_size": side * int(patch.shape[-1]),
            "patch_size": int(patch.shape[-1]),
            "encoder_dim": int(patch.shape[0]),
            "encoder_depth": depth,
            "encoder_heads": int(patch.shape[0]) // int(relative[0].shape[1]),
            "encoder_global": [i for i, r in enumerate(relative) if r.shape[0] == whole],
            "window_size": windows.pop() if windows else side,
            "prompt_dim": dim,
            "decoder_depth": _count(
                state, r"mask_decoder\.transformer\.layers\.(\d+)\.norm1\.weight"
            ),
            "decoder_heads": _DECODER_HEADS,
            "decoder_mlp": int(inner),
        }
    except KeyError as error:
        raise ConfigError(f"{folder}: SAM lacks {error.args[0]}") from error


_DECODER_HEADS = 8
"""Of the decoder of all public SAMs; no shape shows them."""


def _count(state: Mapping[str, Tensor], form: str) -> int:
    matches = (re.fullmatch(form, name) for name in state)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)
