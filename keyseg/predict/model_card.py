"""The model card of an export: what the model is, what it scored, how it is loaded."""

from __future__ import annotations

from typing import Any

from keyseg.config import RunConfig

_SCORES = ("giou", "ciou", "keyword_accuracy")

_LOAD = """\
from transformers import AutoModelForImageTextToText, AutoProcessor
language = AutoModelForImageTextToText.from_pretrained("{language}")
processor = AutoProcessor.from_pretrained("{language}")
"""
_SAM = """\
from segment_anything import sam_model_registry
sam = sam_model_registry["{kind}"]("{sam}")
"""
_SAM_FOLDER = """\
from pathlib import Path
from keyseg.model.backbones.sam import load_sam  # segment_anything's classes, no public size
sam = load_sam(Path("{sam}"), "folder")
"""
_SAM_TRANSFORMERS = """\
from transformers import AutoModelForMaskGeneration
sam = AutoModelForMaskGeneration.from_pretrained("{sam}")
"""
_LOADS = {"folder": _SAM_FOLDER, "transformers": _SAM_TRANSFORMERS}
"""By `sam_type`; others are of segment_anything's registry."""


def card(cfg: RunConfig, info: dict[str, Any], about: dict[str, Any], dtype: str) -> str:
    """README.md of an export. `info`: run.json; `about`: keyseg.json."""
    choice, kind = cfg.model, about["sam_type"]
    loads = _LOAD + _LOADS.get(kind, _SAM)
    needs = ", ".join(needed(about))
    commit = (info.get("git") or {}).get("commit") or "unknown"
    return f"""\
# keyseg {info.get("label") or cfg.fusion["name"]}, seed {cfg.seed}

Segments what a query asks for: a language model answers with the tokens `{choice.tokens.key}`
(what it is called) and `{choice.tokens.seg}` (where it is), the fusion variant
`{cfg.fusion["name"]}` joins the two, and a mask decoder draws.

- base: `{choice.language_weights}` and `{choice.mask_weights}` ({kind}); their licences hold for
  this copy
- LoRA (r {choice.lora.r}, {", ".join(choice.lora.targets)}) is merged; `{about["language"]}/` is
  stored in {dtype}
- trained on `data={cfg.data["name"]}`, {cfg.optim.steps} steps, `loss={cfg.loss.name}`
- run `{info.get("signature")}`, commit `{commit}`; `config.yaml` is all of its settings

{_scores(info)}
## Ask it

    python predict.py PICTURE "QUERY" MASK.png

A query that ends with `.`, `?` or `!` is asked as it stands; anything else is taken for a phrase
and put into a question. `predict.py` shows the whole way; it needs {needs} and
keyseg (for the class of the fusion variant).

## Load the parts

```python
{loads.format(kind=kind, language=about["language"], sam=about["sam"])}
from safetensors.torch import load_file
head = load_file("keyseg.safetensors")  # fusion, projections, keyword head
```

Prompts, token ids ({about["key_id"]} and {about["seg_id"]}) and the fusion's class are in
`keyseg.json`.
"""


def needed(about: dict[str, Any]) -> list[str]:
    """Packages that predict.py needs beside keyseg."""
    drawing = [] if about["sam_type"] == "transformers" else ["segment-anything"]
    return ["torch", "torchvision", "transformers", *drawing, *about["needs"]]


def _scores(info: dict[str, Any]) -> str:
    """A table of the test scores, a line a protocol; nothing where test was not read."""
    summary: dict[str, dict[str, float]] = info.get("summary") or {}
    names = [n for n in _SCORES if any(n in scores for scores in summary.values())]
    if not names:
        return ""
    lines = [f"| protocol | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for protocol, scores in summary.items():
        cells = (f"{100 * scores[n]:.1f}" if n in scores else "-" for n in names)
        lines.append(f"| {protocol} | {' | '.join(cells)} |")
    return "Scores on its test split, one seed, in percent:\n\n" + "\n".join(lines) + "\n"
