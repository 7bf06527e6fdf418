"""The fusion variant that a config names."""

from __future__ import annotations

from torch import nn

from keyseg.config import ConfigError, RunConfig
from keyseg.model.fusion import FusionVariant
from keyseg.runs import targets


def build_fusion(cfg: RunConfig, dim: int) -> FusionVariant:
    """The variant that `fusion._target_` names, for prompts of `dim` channels.

    Raises:
        ConfigError: there is no such class, it does not take these options, or it reads KEY where
            answers hold none.
    """
    options = {k: v for k, v in cfg.fusion.items() if k not in ("_target_", "name")}
    target = str(cfg.fusion["_target_"])
    made = targets.find_class("fusion._target_", target, nn.Module)
    try:
        variant: FusionVariant = made(dim=dim, n_keys=cfg.model.tokens.n_keys, **options)
    except Exception as error:  # whatever another's code may raise
        kind = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        raise ConfigError(f"fusion={cfg.fusion['name']} ({target}): {kind}{error}") from error
    if variant.uses_key and not cfg.model.tokens.n_keys:
        raise ConfigError(
            f"fusion={cfg.fusion['name']} reads KEY, and model.tokens.n_keys=0 leaves none in the "
            "answer: set model.tokens.n_keys=1, or take fusion=no_key, or a variant that does not "
            "read KEY (self, mlp, random_key)"
        )
    return variant
