"""The model card of an export: what the model is, what it scored, how it is loaded."""

from __future__ import annotations

from typing import Any

from keyseg.config import RunConfig
from keyseg.model.backbones.sam import FOLDER_TYPE

_SCORES = ("giou", "ciou", "keyword_accuracy")

_LOAD = """\
from transformers import AutoProcessor, LlavaForConditionalGeneration
llava = LlavaForConditionalGeneration.from_pretrained("llava")
processor = AutoProcessor.from_pretrained("llava")
"""
_SAM = """\
from segment_anything import sam_model_registry
sam = sam_model_registry["{kind}"]("sam.pth")
"""
_SAM_FOLDER = """\
from pathlib import Path
from keyseg.model.backbones.sam import load_sam  # segment_anything's classes, no public size
sam = load_sam(Path("sam"), "folder")
"""


def card(cfg: RunConfig, info: dict[str, Any], about: dict[str, Any], dtype: str) -> str:
    """README.md of an export. `info`: run.json; `about`: keyseg.json."""
    choice = cfg.model
    loads = _LOAD + (_SAM_FOLDER if choice.sam_type == FOLDER_TYPE else _SAM)
    needs = "".join(f", {package}" for package in about["needs"])
    commit = (info.get("git") or {}).get("commit") or "unknown"
    return f"""\
# keyseg {info.get("label") or cfg.fusion["name"]}, seed {cfg.seed}

Segments what a query asks for: LLaVA answers with the tokens `{choice.tokens.key}` (what it is
called) and `{choice.tokens.seg}` (where it is), the fusion variant `{cfg.fusion["name"]}` joins the
two, and SAM's mask decoder draws.

- base: `{choice.llava}` and `{choice.sam}` ({choice.sam_type}); their licences hold for this copy
- LoRA (r {choice.lora.r}, {", ".join(choice.lora.targets)}) is merged; LLaVA is stored in {dtype}
- trained on `data={cfg.data["name"]}`, {cfg.optim.steps} steps, `loss={cfg.loss.name}`
- run `{info.get("signature")}`, commit `{commit}`; `config.yaml` is all of its settings

{_scores(info)}
## Ask it

    python predict.py PICTURE "QUERY" MASK.png

A query that ends with `.`, `?` or `!` is asked as it stands; anything else is taken for a phrase
and put into a question. `predict.py` shows the whole way; it needs torch, transformers,
segment-anything{needs} and keyseg (for the class of the fusion variant).

## Load the parts

```python
{loads.format(kind=choice.sam_type)}
from safetensors.torch import load_file
head = load_file("keyseg.safetensors")  # fusion, projections, keyword head
```

Prompts, token ids ({about["key_id"]} and {about["seg_id"]}) and the fusion's class are in
`keyseg.json`.
"""


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
