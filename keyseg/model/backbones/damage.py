"""Whether files of weights are whole and of the family that a config asks for: read from their
heads, before anything is loaded. Loads no torch."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

MODEL_TYPES = {
    "Llava": ("llava",),
    "Qwen25Vl": ("qwen2_5_vl",),
    "Qwen3Vl": ("qwen3_vl",),
    "InternVl": ("internvl",),
    "LlavaOnevision": ("llava_onevision",),
    "SmolVlm": ("smolvlm",),
    "Sam2": ("sam2", "sam2_video"),
    "SamHq": ("sam_hq",),
    "Sam3Tracker": ("sam3_tracker", "sam3_video"),
}
"""By a side's class, what transformers calls the families that it reads; others are not looked at.
"""
PACKAGES = {"SmolVlm": ("num2words", "smolvlm")}
"""By a side's class, a package that its library asks for, and the extra of keyseg that has it."""
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_AGAIN = "copy or download it again"


def needed(target: str) -> list[str]:
    """Packages that a side's class needs beside those that every one needs."""
    return list(PACKAGES.get(target.rpartition(".")[2], ())[:1])


def lacking(target: str) -> str:
    """What a side's class needs and is not installed, in words; "" if nothing."""
    package, extra = PACKAGES.get(target.rpartition(".")[2], ("", ""))
    if not package or importlib.util.find_spec(package) is not None:
        return ""
    return f"{target} needs {package}: pip install 'keyseg[{extra}]'"


def wrong(path: Path, target: str, *, reads_text: bool) -> str:
    """What is wrong with a folder or file of weights, in words; "" if nothing is.

    target: the side's class; reads_text: whether it needs a tokenizer.
    """
    if path.is_file():
        return cut(path)
    looks: list[str] = [_family(path, target)]
    if reads_text and not any((path / name).exists() for name in _TOKENIZERS):
        looks.append(f"there is no tokenizer in {path} ({', '.join(_TOKENIZERS)}): {_AGAIN}")
    return next(filter(None, [*looks, *(cut(file) for file in _files(path))]), "")


def _family(folder: Path, target: str) -> str:
    wanted: Sequence[str] = MODEL_TYPES.get(target.rpartition(".")[2], ())
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{folder / 'config.json'} cannot be read ({error}): {_AGAIN}"
    kind = config.get("model_type") if isinstance(config, dict) else None
    if wanted and kind not in wanted:
        return (
            f"{folder / 'config.json'} says model_type={kind}, and {target} reads "
            f"{' or '.join(wanted)}: choose the model that fits the folder, or give another folder"
        )
    if wanted and "vision_config" not in config and kind in ("llava", "llava_onevision"):
        return (
            f"{folder} is in the first LLaVA's own layout, as LISA's family is published: its "
            "config.json has no vision_config. Give a folder that transformers wrote "
            "(https://huggingface.co/llava-hf)"
        )
    return ""


def _files(folder: Path) -> Iterable[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(names))]
    return [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("pytorch_model*.bin"))]


def cut(file: Path) -> str:
    """Whether a file of tensors has another size than its head says; "" if it has not.

    Of torch's own format, a zip archive, whether its end is there; the oldest has neither.
    """
    if file.suffix == ".safetensors":
        return _cut_safetensors(file)
    with file.open("rb") as data:
        zipped = data.read(2) == b"PK"
    if zipped and not zipfile.is_zipfile(file):
        return f"{file} was cut short: {_AGAIN}"
    return ""


def _cut_safetensors(file: Path) -> str:
    size = file.stat().st_size
    try:
        with file.open("rb") as data:
            head = int.from_bytes(data.read(8), "little")
            if size < 8 or head > size - 8:
                return f"{file} was cut short, or is no safetensors file: {_AGAIN}"
            entries: Any = json.loads(data.read(head))
        ends = [e["data_offsets"][1] for name, e in entries.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{file} is no safetensors file: {_AGAIN}"
    wanted = 8 + head + max(ends, default=0)
    if wanted == size:
        return ""
    return f"{file} has {size:,} bytes and its head asks for {wanted:,}: {_AGAIN}"
