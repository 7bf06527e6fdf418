"""Nobody outside a backbone's own file knows it by name."""

import ast
import re

import pytest

from keyseg.config import PROJECT

BACKBONES = PROJECT / "keyseg/model/backbones"
NEUTRAL = {"__init__", "sides", "encoders", "vlm", "language", "weights"}
NEUTRAL |= {"clip_view", "byte_tokenizer", "damage"}
"""Modules beside the families: the protocols, and what families share."""
FAMILIES = {file.stem for file in BACKBONES.glob("*.py")} - NEUTRAL
OF_LIBRARIES = r"segment_anything|(Llava|Sam\d?|CLIP|Qwen|InternVL|Siglip|SmolVLM)[A-Z0-9]\w*"
EXCEPTIONS = {
    "tiny": "the recipe makes a LLaVA and a SAM",
    "config.py": "the two that a config has which names none",
    "predict/imported_model.py": "makes both of what LISA's family published",
    "predict/exported_script.py": "lies beside an export, and loads it with plain libraries",
}
"""Files and rooms that may name one, and why."""
FILES = [f for f in sorted((PROJECT / "keyseg").rglob("*.py")) if not f.is_relative_to(BACKBONES)]


def classes():
    """Of the families' files."""
    trees = (ast.parse((BACKBONES / f"{stem}.py").read_text()) for stem in FAMILIES)
    return {n.name for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}


def named_in(file):
    """What a file names of the families: in code and in texts, but not in sentences."""
    words = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            words |= {node.module or "", *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            words |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and re.fullmatch(r"[\w.]+", str(node.value)):
            words.add(str(node.value))
    own = "|".join([*classes(), *(rf"keyseg\.model\.backbones\.{stem}" for stem in FAMILIES)])
    return {word for word in words if re.search(rf"\b({own}|{OF_LIBRARIES})\b", word)}


def exception(file):
    place = file.relative_to(PROJECT / "keyseg").as_posix()
    return next((n for n in EXCEPTIONS if place == n or place.startswith(f"{n}/")), None)


def test_no_family_is_known_outside_its_file():
    knowing = {f: named_in(f) for f in FILES if not exception(f)}
    assert not {str(f): names for f, names in knowing.items() if names}


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_is_one(name):
    """Else the list would keep what is none any more."""
    assert any(named_in(f) for f in FILES if exception(f) == name), EXCEPTIONS[name]
