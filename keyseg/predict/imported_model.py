"""A model of LISA's family as a run: backbones in the public layouts, and what is trained on them.

    outputs/NAME/backbones/llava     LLaVA as transformers saves it: the language model merged
                             sam     SAM with the trained decoder
    outputs/NAME/SIGNATURE/          a run with no training

What LISA does otherwise than LLaVA-1.5 is in the config, not in code: a projector of one layer (the
second is the identity, without an activation between), CLIP at 224 pixels (its own processor), the
state before SEG (model.tokens.state), <im_start> (prompt.user). What KeySeg's released code adds to
LISA is fusion=released_trained: with one KEY its attention is a linear map of KEY, and what its
layers hold is taken, trained there or not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from keyseg.config import LLAVA, PROJECT, ConfigError, RunConfig, signature, validate
from keyseg.config import SAM as SAM_SIDE
from keyseg.data.templates import IMAGE_TOKEN
from keyseg.model.backbones.sam import FOLDER_TYPE, build_sam
from keyseg.model.backbones.weights import fingerprint, weights_fingerprint, weights_path
from keyseg.model.controls import Released
from keyseg.model.keyseg import KeySeg
from keyseg.model.manifest import manifest, trainable
from keyseg.predict.foreign_weights import (
    FUSION_PART,
    LANGUAGE_PART,
    PROJECTOR_PART,
    SAM_PART,
    SEG_PART,
    TABLE_PART,
    Files,
    SortedTensors,
    adapter_alpha,
    config_of,
    merged,
    sam_sizes,
)
from keyseg.runs import disk, imported, sweep_directory
from keyseg.runs.run_directory import DONE, RunDirectory
from keyseg.train.build import build
from keyseg.train.checkpoints import write_best

BACKBONES = "backbones"
"""The folder of an import with LLaVA and SAM, beside its run."""

_START, _END = "<im_start>", "<im_end>"


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A folder of LISA's family. `clip`: a folder or cached hub id; `key`: of KeySeg's alone;
    `alpha`: of LoRA that lies apart, None where the folder says it (adapter_config.json)."""

    folder: Path
    system: str
    clip: str
    seg: str = "[SEG]"
    key: str = "[KEY]"
    alpha: float | None = None
    said_by: str = ""


def import_weights(
    source: ForeignCheckpoint,
    files: Files,
    keys: SortedTensors,
    cfg: RunConfig,
    sweep_dir: Path,
    command: str,
) -> RunDirectory:
    """Write the run; the folder appears whole, or not at all.

    Args:
        files, keys: of the source's folder, opened and sorted.
        cfg: what is not the weights': prompt, precision, data of its own test.
        sweep_dir: where it goes; must not exist.

    Raises:
        ConfigError: a key, a shape or a token that does not fit; names it. Nothing is written then.
        DiskFullError: there is no room; nothing of it stays.
    """
    if sweep_dir.exists():
        raise ConfigError(f"{sweep_dir} is there already: give another --name")
    aside = sweep_dir.with_name(f".{sweep_dir.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    sweep_dir.parent.mkdir(parents=True, exist_ok=True)
    needed, free = 1.3 * files.size, shutil.disk_usage(sweep_dir.parent).free  # SAM becomes fp32
    if free < needed:
        raise ConfigError(
            f"{sweep_dir.parent} has {free / 1e9:.1f} GB free, the import needs about "
            f"{needed / 1e9:.1f} GB: make room, or give keyseg --outputs on another disk"
        )
    try:
        with disk.explained(sweep_dir):
            llava = _write_llava(source, files, keys, aside / BACKBONES / "llava")
            _write_sam(source, merged(files, keys, SAM_PART), aside / BACKBONES / "sam")
            aside.rename(sweep_dir)
            run = _write_run(source, cfg, sweep_dir, files, keys, llava, command)
    except BaseException:
        shutil.rmtree(sweep_dir, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return run


@dataclass(frozen=True)
class _Written:
    """What became of LLaVA: new parameters by name, and whether its images stand in <im_start>."""

    new: Mapping[str, str]
    marked: bool


def _write_llava(
    source: ForeignCheckpoint, files: Files, keys: SortedTensors, folder: Path
) -> _Written:
    state = merged(files, keys, LANGUAGE_PART, _alpha(source, keys))
    known = len(state["model.language_model.embed_tokens.weight"])
    tokenizer, marked = _tokenizer(source, known, keyed=keys.of_keyseg)
    new: dict[str, str] = {}
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        table = state[name]
        if image_id >= len(table):  # its row is never read: CLIP's features stand in its place
            rows = table.new_zeros(image_id + 1 - len(table), table.shape[1])
            state[name] = torch.cat([table, rows])
            new[f"{name}, rows from {len(table)}"] = f"zeros, for {IMAGE_TOKEN}"
    config, pictures, clip = _vision(source)
    projector = merged(files, keys, PROJECTOR_PART)
    if keys.projector_layers == 1:
        width = len(projector["linear_1.bias"])
        like = projector["linear_1.weight"]
        projector["linear_2.weight"] = torch.eye(width, dtype=like.dtype)
        projector["linear_2.bias"] = like.new_zeros(width)
        new["multi_modal_projector.linear_2"] = "the identity: the projector has one layer"
    state |= {f"model.multi_modal_projector.{name}": value for name, value in projector.items()}
    dtype = state["lm_head.weight"].dtype
    state |= {f"model.vision_tower.{name}": v.to(dtype) for name, v in clip.items()}
    whole = _llava_config(source, state, config, image_id, keys.projector_layers)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(whole)
    try:
        model.load_state_dict({k: v.contiguous() for k, v in state.items()}, assign=True)
    except RuntimeError as error:
        raise _misfit(f"{source.folder} does not fit its config.json", error) from error
    model.to(dtype).save_pretrained(folder)
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token
    ).save_pretrained(folder)
    return _Written(new, marked)


def _alpha(source: ForeignCheckpoint, keys: SortedTensors) -> float:
    """Alpha of LoRA that lies apart; 0 where none does."""
    if not keys.unmerged:
        return 0.0
    alpha = adapter_alpha(source.folder) if source.alpha is None else source.alpha
    if alpha is None:
        raise ConfigError(
            f"{source.folder}: LoRA lies apart from the weights that it adapts, and no "
            "adapter_config.json says its alpha: give --lora-alpha (LISA and what follows it train "
            "with 16)"
        )
    return alpha


def _tokenizer(source: ForeignCheckpoint, rows: int, *, keyed: bool) -> tuple[Any, bool]:
    """The tokenizer with the image's place in it; whether images stand between two tokens.

    `keyed`: it has to know KEY.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except Exception as error:  # whatever its library raises
        raise ConfigError(
            f"{source.folder}: its tokenizer cannot be read "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "tokenizer.json is needed, or tokenizer.model and `pip install sentencepiece`"
        ) from error
    known = tokenizer.get_vocab()
    wanted = {"seg": source.seg, **({"key": source.key} if keyed else {})}
    for option, token in wanted.items():
        if known.get(token, rows) >= rows:
            raise ConfigError(
                f"{source.folder}: {token} is no token with a row of its own "
                f"({len(known)} tokens, {rows} rows): give its text with --{option}"
            )
    _as_trained(tokenizer)
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    return tokenizer, {_START, _END} <= known.keys()


def _as_trained(tokenizer: Any) -> None:
    """Read blanks beside added tokens as the family was trained to (transformers 4.31, slow ones).

    An added token without a role takes them with it, and a word behind it has its own: the state
    before KEY is that of the full stop.
    """
    split = tokenizer.backend_tokenizer.pre_tokenizer
    if getattr(split, "prepend_scheme", None) == "first":
        split.prepend_scheme = "always"
        tokenizer.backend_tokenizer.pre_tokenizer = split
        tokenizer.legacy = tokenizer.init_kwargs["legacy"] = True  # what this is called there
    roles = set(tokenizer.all_special_tokens)
    tokenizer.add_tokens(
        [
            AddedToken(str(t), lstrip=True, rstrip=True, normalized=False, special=t.special)
            for t in tokenizer.added_tokens_decoder.values()
            if str(t) not in roles
        ]
    )


def _vision(source: ForeignCheckpoint) -> tuple[Any, Any, dict[str, Tensor]]:
    """Config, image processor and weights of CLIP."""
    path = weights_path(source.clip)
    try:
        config = CLIPVisionConfig.from_pretrained(path, local_files_only=True)
        pictures = CLIPImageProcessor.from_pretrained(path, local_files_only=True)
        model, info = CLIPVisionModel.from_pretrained(
            path, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--clip {source.clip}: no CLIP there ({str(error).splitlines()[0]}): give a folder, "
            "or `hf download openai/clip-vit-large-patch14` (LISA; -336 for READ and SESAME)"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ConfigError(f"--clip {source.clip}: {len(missing)} weights are missing: {missing[0]}")
    return config, pictures, dict(model.state_dict())


def _llava_config(
    source: ForeignCheckpoint, state: Mapping[str, Tensor], vision: Any, image_id: int, layers: int
) -> LlavaConfig:
    config = config_of(source.folder)
    sizes: dict[str, Any] = {
        k: config[k]
        for k in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "rms_norm_eps",
            "hidden_act",
            "bos_token_id",
            "eos_token_id",
        )
        if config.get(k) is not None
    }
    lacking = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}
    if lost := sorted(lacking - sizes.keys()):
        raise ConfigError(f"{source.folder / 'config.json'} lacks {', '.join(lost)}")
    text = LlamaConfig(
        vocab_size=len(state["lm_head.weight"]),
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": config.get("rope_theta", 10_000.0)},
        **sizes,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image_id,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=int(str(config.get("mm_vision_select_layer", -2))),
        projector_hidden_act="linear" if layers == 1 else "gelu",
        tie_word_embeddings=False,
    )


def _write_sam(source: ForeignCheckpoint, state: dict[str, Tensor], folder: Path) -> None:
    sizes = sam_sizes(state, source.folder)
    with torch.device("meta"):
        sam = build_sam(sizes)
    whole = {name: value.float().contiguous() for name, value in state.items()}
    try:
        sam.load_state_dict(whole, assign=True)
    except RuntimeError as error:
        raise _misfit(f"{source.folder}: SAM does not fit its shapes", error) from error
    folder.mkdir(parents=True)
    save_file(whole, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(sizes, indent=1))


def _write_run(
    source: ForeignCheckpoint,
    cfg: RunConfig,
    sweep_dir: Path,
    files: Files,
    keys: SortedTensors,
    llava: _Written,
    command: str,
) -> RunDirectory:
    cfg = _config(source, cfg, sweep_dir, llava, keyed=keys.of_keyseg)
    torch.manual_seed(cfg.draws)
    parts = build(cfg, torch.device("cpu"))
    projection = parts.model.seg_projection
    assert projection is not None, "a variant that reads SEG alone"
    own = {name: v.float() for name, v in merged(files, keys, SEG_PART).items()}
    try:
        projection.load_state_dict(own)
    except RuntimeError as error:
        raise _misfit(f"{source.folder}: SEG's projection does not fit", error) from error
    if keys.of_keyseg:
        _take_fusion(source, parts.model, files, keys)
    key = signature(cfg)
    run = RunDirectory.create(
        sweep_dir / key,
        cfg,
        label=imported.label(source.system),
        factors={imported.SYSTEM: source.system},
        sweep=sweep_dir.name,
    )
    state = {k: v.detach().contiguous() for k, v in trainable(parts.model).items()}
    write_best(run.best_file, state)
    new = {**llava.new, "LoRA": "adds nothing before it is trained"}
    origin = {
        "system": source.system,
        "form": imported.OF_WEIGHTS,
        "file": str(source.folder),
        "sha256": fingerprint(str(source.folder)),
        "said_by": source.said_by,
        "clip": source.clip,
        "used": {part: len(of) for part, of in keys.parts.items() if of},
        "left_out": dict(keys.left_out),
        "new": new,
        **({"lora_alpha": _alpha(source, keys)} if keys.unmerged else {}),
    }
    rows = manifest(parts.model, parts.features.encoders)
    run.update(
        status=DONE,
        steps=0,
        manifest=rows,
        trainable_parameters=sum(r["parameters"] for r in rows if r["trainable"]),
        weights_fingerprint=weights_fingerprint(cfg),
        checkpoint_fingerprint=disk.sha256(run.best_file)[:16],
        summary={},
        **{imported.IMPORTED: origin},
    )
    cells = [imported.cell(source.system, key, cfg.seed)]
    design = imported.design(sweep_dir.name, source.system, command, cells)
    sweep_directory.write(sweep_dir, design)
    return run


def _take_fusion(
    source: ForeignCheckpoint, model: KeySeg, files: Files, keys: SortedTensors
) -> None:
    """KeySeg's own layers: `out(value(k))` is one linear map, its keywords' table our own one."""
    fusion, head = model.fusion, model.keyword_head
    if not isinstance(fusion, Released) or not all(p.requires_grad for p in fusion.parameters()):
        raise ConfigError(
            f"{source.folder} is KeySeg's: it comes with fusion=released_trained, what its main "
            "run computes and what a run keeps of it, and with no other"
        )
    assert head is not None, "KEY is in its answers"
    own = {name: v.double() for name, v in merged(files, keys, FUSION_PART).items()}
    table = {name: v.double() for name, v in merged(files, keys, TABLE_PART).items()}
    value, out = (own.pop(f"{name}_proj.weight") for name in ("value", "out"))
    shift = out @ own.pop("value_proj.bias") + own.pop("out_proj.bias")
    try:
        fusion.value.load_state_dict({"weight": out @ value, "bias": shift})
        fusion.mlp.load_state_dict({k.removeprefix("mlp."): v for k, v in own.items()})
        words = model.vlm.table().double()
        with torch.no_grad():
            head.table.copy_(words @ table["weight"].T + table["bias"])
    except RuntimeError as error:
        raise _misfit(f"{source.folder}: its fusion does not fit", error) from error


def _config(
    source: ForeignCheckpoint, cfg: RunConfig, sweep_dir: Path, llava: _Written, *, keyed: bool
) -> RunConfig:
    place = (sweep_dir / BACKBONES).resolve()
    shown = place.relative_to(PROJECT) if place.is_relative_to(PROJECT) else place
    tokens = replace(cfg.model.tokens, seg=source.seg, n_keys=0, state="previous")
    keyword = cfg.loss.keyword
    if keyed:
        tokens = replace(tokens, key=source.key, n_keys=1, order="seg_first")
        keyword = replace(keyword, table="own")
    model = replace(
        cfg.model,
        name=sweep_dir.name,
        language={"_target_": LLAVA},
        mask={"_target_": SAM_SIDE},
        llava=str(shown / "llava"),
        sam=str(shown / "sam"),
        sam_type=FOLDER_TYPE,
        init="pretrained",
        sizes={},
        projection_layers=2,
        shared_projection=keyed,
        tokens=tokens,
    )
    user = cfg.prompt.user
    if llava.marked and _START not in user:
        user = user.replace(IMAGE_TOKEN, f"{_START}{IMAGE_TOKEN}{_END}")
    loss = replace(cfg.loss, keyword=keyword)
    whole = replace(cfg, model=model, loss=loss, prompt=replace(cfg.prompt, user=user))
    return validate(asdict(whole))


def _misfit(what: str, error: Exception) -> ConfigError:
    return ConfigError(f"{what}: {' '.join(str(error).split())[:300]}")
