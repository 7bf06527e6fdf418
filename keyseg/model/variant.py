"""The fusion variant that a config names."""

from __future__ import annotations

import inspect

from torch import nn

from keyseg.config import ConfigError, RunConfig
from keyseg.model.fusion import FusionVariant
from keyseg.runs import targets


def build_fusion(cfg: RunConfig, dim: int, width: int = 0) -> FusionVariant:
    """The variant that `fusion._target_` names, for prompts of `dim` channels.

    `width`: of the language model; one that is matched to another's size (`match`) needs it for its
    own, nothing else does.

    Raises:
        ConfigError: it cannot be built, or reads KEY where answers hold none.
    """
    options = {k: v for k, v in cfg.fusion.items() if k not in ("_target_", "name")}
    if "match" in options:
        options["beside"] = _beside(cfg, dim, width) if width else 0
    target = str(cfg.fusion["_target_"])
    made = targets.find_class("fusion._target_", target, nn.Module)
    for name, parameter in inspect.signature(made).parameters.items():
        switch, given = isinstance(parameter.default, bool), options.get(name, parameter.default)
        if switch and not isinstance(given, bool):
            raise ConfigError(f"fusion.{name}={given}: must be true or false")
    try:
        variant: FusionVariant = made(dim=dim, n_keys=cfg.model.tokens.n_keys, **options)
        reads = (variant.uses_seg, variant.uses_key, variant.uses_context)
        _ = (variant.key_in_context, variant.key_from)  # missing, unless it is a `Variant`
    except Exception as error:  # a variant is anybody's class
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise ConfigError(f"fusion={cfg.fusion['name']} ({target}): {reason}") from error
    if not any(reads):
        raise ConfigError(f"fusion={cfg.fusion['name']} ({target}): it reads nothing")
    if variant.uses_key and not cfg.model.tokens.n_keys:
        raise ConfigError(
            f"fusion={cfg.fusion['name']} reads KEY, and model.tokens.n_keys=0 leaves none in the "
            "answer: set model.tokens.n_keys=1, or take fusion=no_key, or a variant that does not "
            "read KEY (self, mlp, random_key)"
        )
    return variant


def _beside(cfg: RunConfig, dim: int, width: int) -> int:
    """Parameters of the projections of KEY and of the context, as `KeySeg` makes them."""
    inner = (cfg.model.projection_layers - 1) * (width * width + width)
    last = width * dim + dim
    return last + (0 if cfg.model.shared_projection else inner + last)
