"""The files of the backbones: where they are, whether they are all there, and their fingerprint.

Loads no torch and no numpy: every command line imports this.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keyseg.config import SAM, ConfigError, RunConfig, resolve_path
from keyseg.model.backbones import damage

_SIZES = {
    "llava-hf/llava-1.5-7b-hf": "14 GB",
    "llava-hf/llava-1.5-13b-hf": "27 GB",
    "Qwen/Qwen2.5-VL-3B-Instruct": "7.5 GB",
    "Qwen/Qwen2.5-VL-7B-Instruct": "16.6 GB",
    "Qwen/Qwen3-VL-4B-Instruct": "8.9 GB",
    "Qwen/Qwen3-VL-8B-Instruct": "17.5 GB",
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": "4.5 GB",
    "vit_b": "375 MB",
    "vit_l": "1.25 GB",
    "vit_h": "2.56 GB",
}
"""Downloads of the public weights."""
LLAVA_PAGE = "https://huggingface.co/llava-hf"
SAM_PAGE = "https://github.com/facebookresearch/segment-anything#model-checkpoints"
WEIGHTS = "model.safetensors"
LANGUAGE_FILES = ("config.json", "tokenizer_config.json", WEIGHTS)
MASK_FILES = ("config.json", WEIGHTS)  # of a folder; SAM's public ones are a file each
SAM_TYPES = ("folder", "vit_h", "vit_l", "vit_b", "default")
"""`sam_type`: a folder, or a file of one of the types in segment_anything's registry."""
_RECIPE = "`python -m keyseg.tiny` rebuilds the bundled one, with --world bruegel model=bruegel's"
_WHOLE_FILE = 64 * 2**20  # bytes up to which a weights file is hashed whole
_WEIGHTS = (".safetensors", ".pth", ".bin")


class WeightsError(OSError):
    """Weights are missing or do not fit; the message names the file and the key to set."""


def check_weights(cfg: RunConfig) -> None:
    """Whether the backbones' files exist, and the library that reads them in 4 bits.

    Raises:
        ConfigError: once for all that is missing: file or id, page, size, and the key to set.
    """
    choice = cfg.model
    own = choice.mask["_target_"] == SAM
    if own and choice.sam_type not in SAM_TYPES:
        raise ConfigError(
            f"model.sam_type={choice.sam_type}: must be one of {', '.join(SAM_TYPES)}"
        )
    if choice.quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantization={choice.quantization} needs bitsandbytes: "
            "pip install 'keyseg[qlora]', or set model.quantization=none"
        )
    if reason := damage.lacking(str(choice.language["_target_"])):
        raise ConfigError(f"model={choice.name}: {reason}")
    if choice.init == "random":
        tokenizer = choice.sizes.get("tokenizer")
        if tokenizer and not Path(weights_path(tokenizer)).is_dir():
            raise ConfigError(
                f"model.sizes.tokenizer={tokenizer}: there is no such folder; leave it out for "
                "bytes, or take the bundled one, keyseg/tiny/weights/llava"
            )
        return
    missing = []
    language, mask = (Path(weights_path(w)) for w in (choice.language_weights, choice.mask_weights))
    if lacks := _lacks(language, LANGUAGE_FILES):
        missing.append(_missing_language(cfg, lacks))
    if lacks := _lacks(mask, MASK_FILES):
        missing.append(_missing_mask(cfg, lacks))
    if missing:
        raise ConfigError("; ".join(missing))
    if reason := damage.wrong(language, choice.language["_target_"], reads_text=True):
        raise ConfigError(f"{_key(cfg)}: {reason}")
    if reason := damage.wrong(mask, choice.mask["_target_"], reads_text=False):
        raise ConfigError(f"model.sam: {reason}")
    folder = mask.is_dir()
    if own and folder != (choice.sam_type == "folder"):
        raise ConfigError(
            f"model.sam_type={choice.sam_type}: model.sam={choice.sam} is "
            f"{'a folder' if folder else 'a file'}; choose both with model/sam=NAME"
        )


def _lacks(path: Path, files: Sequence[str]) -> str:
    """What is not there of a file, or of a folder that should hold `files`; "" if all is.

    Where an index names the files of the weights, those are looked for.
    """
    if not path.is_dir():
        return "" if path.exists() else str(path)
    index = path / "model.safetensors.index.json"
    names = [n for n in files if n != WEIGHTS]
    if index.exists():
        names += sorted(set(json.loads(index.read_text())["weight_map"].values()))
    elif not any(path.glob("pytorch_model*.bin")):
        names.append(WEIGHTS)
    lacking = [name for name in names if not (path / name).exists()]
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return f"{lacking[0]}{more} in {path}" if lacking else ""


def _missing_language(cfg: RunConfig, lacks: str) -> str:
    name, file = cfg.model.language_weights, f"experiments/model/{cfg.model.name}.yaml"
    key = _key(cfg)
    own = key == "model.llava"
    if is_hub_id(name):
        return _not_cached(key, name, file)
    remedy = f"Set {key} in {file} or on the command line to a folder in the Hugging Face layout"
    page = f" ({LLAVA_PAGE}; 7B: {_SIZES['llava-hf/llava-1.5-7b-hf']}); {_RECIPE}" if own else ""
    return f"{key}={name}: there is no {lacks}. {remedy}{page}"


def _key(cfg: RunConfig) -> str:
    """Of the config, where the language side's weights are."""
    own = "weights" not in cfg.model.language
    return "model.llava" if own else "model.language.weights"


def _not_cached(key: str, name: str, file: str) -> str:
    size = _SIZES.get(name, "size: see the page")
    return (
        f"{key}={name} is not in the local Hugging Face cache. `hf download {name}` "
        f"gets it ({size}, https://huggingface.co/{name}), or set {key} in {file} or on "
        "the command line to a folder that holds it"
    )


def _missing_mask(cfg: RunConfig, lacks: str) -> str:
    if cfg.model.mask["_target_"] != SAM:
        name = cfg.model.mask_weights
        if is_hub_id(name):
            return _not_cached("model.sam", name, "experiments/mask/")
        return (
            f"model.sam={name}: there is no {lacks}. Set model.sam on the command line to a folder "
            "in the Hugging Face layout, or to a hub id, or choose another with mask=NAME"
        )
    kind = cfg.model.sam_type
    option = "tiny" if kind == "folder" else kind
    remedy = (
        _RECIPE
        if kind == "folder"
        else f"{kind} is at {SAM_PAGE} ({_SIZES.get(kind, 'size: see the page')})"
    )
    return (
        f"model.sam={cfg.model.sam}: there is no {lacks}. {remedy}. Set "
        f"model.sam in experiments/model/sam/{option}.yaml or on the command line to where it is"
    )


def weights_path(name: str) -> str:
    """A file or folder, from the project's root if relative.

    Of a hub id the folder in the local cache, so that jobs on nodes without a network find it; the
    id itself where the cache does not hold it whole.
    """
    return _cached(name) or name if is_hub_id(name) else str(resolve_path(name))


def _cached(name: str) -> str | None:
    folder = cached_folder(name, "config.json")
    return None if folder is None or _lacks(folder, MASK_FILES) else str(folder)


def cached_folder(name: str, file: str) -> Path | None:
    """The folder of the local cache that holds a hub id's `file`; None where it does not.

    Given this folder in the place of the id, transformers asks no network: of an id it looks up
    facts about tokenizers, whatever `local_files_only` says, with minutes of retries.
    """
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, file)
    return Path(path).parent if isinstance(path, str) else None


def is_hub_id(name: str) -> bool:
    """`owner/name`, unless a folder is called so, or it ends like a file of weights."""
    path = name.startswith((".", "/", "~")) or name.endswith(_WEIGHTS)
    return name.count("/") == 1 and not path and not resolve_path(name).exists()


def weights_fingerprint(cfg: RunConfig) -> str:
    """16 hex digits over the backbones' files; of large ones the size and both ends."""
    if cfg.model.init == "random":
        return "random"
    return fingerprint(cfg.model.language_weights, cfg.model.mask_weights)


def check_trained_on(cfg: RunConfig, info: Mapping[str, Any]) -> None:
    """Whether the backbones are those that a run was trained on.

    Args:
        cfg: of the run, with the backbones where they are on this machine.
        info: its run.json.

    Raises:
        ConfigError: they are not; names both fingerprints.
    """
    present, wanted = weights_fingerprint(cfg), info.get("weights_fingerprint")
    if wanted not in (None, present):
        raise ConfigError(
            f"{cfg.model.language_weights} and {cfg.model.mask_weights} are not the weights that "
            f"run {info.get('signature')} was trained on (fingerprint {present}, not {wanted}): "
            "put those back that it was trained on, or train it again"
        )


def fingerprint(*names: str) -> str:
    """16 hex digits over the files of weights; of large ones the size and both ends."""
    total = hashlib.sha256()
    for name in names:
        path = Path(weights_path(name))
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in (f for f in files if f.suffix in _WEIGHTS and f.is_file()):
            size = file.stat().st_size
            with file.open("rb") as data:
                total.update(f"{file.name} {size}".encode())
                if size <= _WHOLE_FILE:
                    total.update(data.read())
                else:
                    total.update(data.read(2**20))
                    data.seek(-(2**20), 2)
                    total.update(data.read())
    return total.hexdigest()[:16]
