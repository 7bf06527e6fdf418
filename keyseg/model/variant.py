"""The fusion variant that a config names."""

from __future__ import annotations

from keyseg.config import ConfigError, RunConfig
from keyseg.model.fusion import FusionVariant
from keyseg.runs.packages import find


def build_fusion(cfg: RunConfig, dim: int) -> FusionVariant:
    """The variant that `fusion._target_` names, for prompts of `dim` channels.

    Raises:
        ConfigError: there is no such class, or it does not take these options.
    """
    options = {k: v for k, v in cfg.fusion.items() if k not in ("_target_", "name")}
    target = str(cfg.fusion["_target_"])
    made = find("fusion", target)
    try:
        variant: FusionVariant = made(dim=dim, n_keys=cfg.model.tokens.n_keys, **options)
    except Exception as error:  # whatever another's code may raise
        kind = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        raise ConfigError(f"fusion={cfg.fusion['name']} ({target}): {kind}{error}") from error
    return variant
