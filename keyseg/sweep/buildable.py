"""Checks, before any job, that a cell can be built: fusion, loss, prompt, tokens, LoRA, points.

Torch is loaded for terms of the loss that are not keyseg's own, where an object score is asked for,
and for fusion variants that were not built here before: what was built is remembered under
paths.data, by config and code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from keyseg.config import LLAVA, ConfigError, RunConfig, resolve_path
from keyseg.model.backbones.weights import weights_path
from keyseg.runs import code, disk, targets

FILE = "variants.json"
"""Under paths.data: of fusion variants that were built, what they are given for KEY."""

_CHANNELS = 256
"""Of a mask side's prompts, at the public sizes."""

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token")


def check(configs: Iterable[RunConfig]) -> None:
    """Look at what every config builds, each different one once.

    Raises:
        ConfigError: something cannot be built; names the key.
    """
    from keyseg.data.templates import check_templates

    seen = set()
    for cfg in configs:
        choice = cfg.model
        parts = [
            cfg.fusion,
            cfg.loss.terms,
            vars(cfg.prompt),
            vars(choice.tokens),
            vars(choice.lora),
            vars(choice.points),
            choice.language,
            choice.clip_view,
        ]
        key = json.dumps(
            [*parts, choice.language_weights, choice.mask, choice.sam, choice.init, choice.sizes],
            default=str,
        )
        if key not in seen:
            seen.add(key)
            check_templates(cfg.prompt, choice.tokens)
            check_tokenizer(cfg)
            check_lora(cfg)
            check_fusion(cfg)
            check_terms(cfg)
            check_score(cfg)
            check_points(cfg)


def check_tokenizer(cfg: RunConfig) -> None:
    """Whether KEY and SEG are tokens of their own in the base's tokenizer, and start from a word.

    Nothing where the tokenizer is not there, or not in one file: `build` looks again.

    Raises:
        ConfigError: they are not.
    """
    from tokenizers import Tokenizer

    from keyseg.data.templates import IMAGE_TOKEN, check_tokens

    folder = _tokenizer_folder(cfg)
    if folder is None or not (folder / "tokenizer.json").exists():
        return
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except Exception as error:  # the library raises the plain class
        raise ConfigError(f"{folder}: its tokenizer cannot be read ({_line(error)})") from error
    named = [settings.get(role) for role in _ROLES]
    roles = [name.get("content") if isinstance(name, dict) else name for name in named]
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    tokens = cfg.model.tokens
    check_tokens(tokens, list(tokenizer.get_vocab()), added, [*roles, IMAGE_TOKEN])
    unknown = tokenizer.token_to_id(str(roles[_ROLES.index("unk_token")]))
    for name, word in (("key_init", tokens.key_init), ("seg_init", tokens.seg_init)):
        if word is None or (name == "key_init" and not tokens.n_keys):
            continue
        ids = tokenizer.encode(word, add_special_tokens=False).ids
        if len(ids) != 1 or ids[0] == unknown:
            raise ConfigError(
                f"model.tokens.{name}={word!r}: must be one known token of the tokenizer, or null "
                "for a draw of its own"
            )


def unknown_words(cfg: RunConfig, queries: Sequence[str]) -> tuple[float, list[str]]:
    """Share of queries with a word that the base's tokenizer does not know, and those words.

    Such words are all read as one. (0, []) where the tokenizer is not there, or knows every text.
    """
    from tokenizers import Tokenizer

    folder = _tokenizer_folder(cfg)
    if folder is None or not (folder / "tokenizer.json").exists() or not queries:
        return 0.0, []
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    role = settings.get("unk_token")
    unknown = tokenizer.token_to_id(str(role.get("content") if isinstance(role, dict) else role))
    words: Counter[str] = Counter()
    lacking = 0
    for query, read in zip(queries, tokenizer.encode_batch(list(queries)), strict=True):
        strange = {
            query[a:b] for i, (a, b) in zip(read.ids, read.offsets, strict=True) if i == unknown
        }
        lacking += bool(strange)
        words.update(strange)
    return lacking / len(queries), [word for word, _ in words.most_common(3)]


def check_lora(cfg: RunConfig) -> None:
    """Whether the language model has layers of the names in `model.lora.targets`.

    Raises:
        ConfigError: one of them is none.
    """
    named = cfg.model.language_weights
    names = _language_layers(Path(weights_path(named)))
    for target in cfg.model.lora.targets if names else ():
        try:
            matched = any(re.fullmatch(target, name) for name in names)
        except re.error as error:
            raise ConfigError(f"model.lora.targets={target}: {error}") from error
        if not matched:
            raise ConfigError(
                f"model.lora.targets={target}: the language model of {named} has no such "
                f"layer; it has {', '.join(sorted(names))}"
            )


def check_fusion(cfg: RunConfig) -> str:
    """Whether the fusion variant can be built. No memory is taken for it.

    Returns:
        What it gets for KEY (`keyseg.model.fusion.KEY_FROM`); "" where it reads none.

    Raises:
        ConfigError: it cannot, or it reads KEY where answers hold none.
    """
    n_keys, dim = cfg.model.tokens.n_keys, _channels(cfg)
    target = str(cfg.fusion["_target_"])
    # before its code is read: that of a large library takes half a minute
    targets.check("fusion._target_", target)
    known = resolve_path(cfg.paths.data) / FILE
    look = [cfg.fusion, n_keys, dim, code.of((target,)).fingerprint]
    key = hashlib.sha256(json.dumps(look, sort_keys=True, default=str).encode()).hexdigest()[:16]
    if key in (before := _read(known)):
        return before[key]
    import torch

    from keyseg.model.variant import build_fusion

    with torch.device("meta"):
        variant = build_fusion(cfg, dim=dim)
    given = variant.key_from if variant.uses_key else ""
    known.parent.mkdir(parents=True, exist_ok=True)
    disk.replace(known, json.dumps({**_read(known), key: given}, sort_keys=True).encode())
    return given


def check_terms(cfg: RunConfig) -> None:
    """Whether `loss.terms` names terms, and gives them options that they take.

    Raises:
        ConfigError: it does not.
    """
    if cfg.loss.terms:
        from keyseg.train.losses import weighted_terms  # loads torch

        weighted_terms(cfg.loss)


def check_score(cfg: RunConfig) -> None:
    """Whether the mask side has an object score, where that is to say that there is no target.

    Raises:
        ConfigError: it has none.
    """
    if not cfg.model.scores_objects:
        return
    target = str(cfg.model.mask["_target_"])
    side = targets.find_class("model.mask._target_", target, object)
    if not getattr(side, "scores_objects", False):
        raise ConfigError(
            f"model.tokens.no_target=score: {target} has no object score; SAM 2 and SAM 3's "
            "tracker have one (mask=sam2_large), or take empty or reject"
        )


def check_points(cfg: RunConfig) -> None:
    """Whether both sides go with `model.points`, where they are asked for.

    A side of somebody else's may: `build` looks at what it is.

    Raises:
        ConfigError: one does not.
    """
    choice = cfg.model
    if not choice.points.count:
        return
    asked = f"model.points.count={choice.points.count}"
    reads, draws = (str(side["_target_"]) for side in (choice.language, choice.mask))
    if reads != LLAVA and reads.startswith("keyseg."):
        raise ConfigError(
            f"{asked}: {reads} sees an image in another form than one square of tokens; take a "
            "LLaVA-1.5, or count=0"
        )
    if choice.clip_view != "crop":
        raise ConfigError(f"{asked}: model.clip_view={choice.clip_view}: points are made for crop")
    side = targets.find_class("model.mask._target_", draws, object)
    if not getattr(side, "takes_points", False):
        raise ConfigError(f"{asked}: {draws} is given no points here; take SAM, or count=0")


def _tokenizer_folder(cfg: RunConfig) -> Path | None:
    """Where the tokenizer is; None where it is made of bytes."""
    if cfg.model.init == "random" and cfg.model.sizes:
        named = cfg.model.sizes.get("tokenizer")
        return Path(weights_path(str(named))) if named else None
    return Path(weights_path(cfg.model.language_weights))


def _language_layers(folder: Path) -> set[str]:
    """Names of the language model's linear layers, as its files have them; empty if unknown."""
    keys: Iterable[str] = ()
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    try:
        if index.exists():
            keys = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        elif whole.exists():
            with whole.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                keys = json.loads(file.read(min(size, 2**26)))
    except (OSError, ValueError, KeyError):  # whoever loads it, says so
        return set()
    modules = [key.removesuffix(".weight") for key in keys if key.endswith(".weight")]
    inside = [n for n in modules if re.search(r"(language|text)_model\b.*\.layers\.", n)]
    return {leaf for name in inside if not (leaf := name.rpartition(".")[2]).endswith("norm")}


def _channels(cfg: RunConfig) -> int:
    """Channels of the mask side's prompts: a folder says its own."""
    file = Path(weights_path(cfg.model.mask_weights)) / "config.json"
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["prompt_dim"])
    except (OSError, ValueError, KeyError, TypeError):
        return _CHANNELS


def _read(file: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in content.items()} if isinstance(content, dict) else {}


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
