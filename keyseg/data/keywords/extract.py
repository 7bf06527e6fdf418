"""Keywords by a text2text model such as FLAN-T5: greedy, in batches, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import torch

from keyseg.config import ConfigError
from keyseg.data.example import Example
from keyseg.data.keywords.file import ByQuery
from keyseg.data.keywords.journal import EXTRACTED, Journal, Word
from keyseg.data.keywords.settle import Item, key_of

PROMPTS = {
    "paper": (
        "Name the most important object in this text as a single word or a short noun phrase.\n\n"
        "{query} {answer}"
    ),
    "released": (
        "Which object of the text below matters most? Give a single word or a short noun phrase."
        "\n\n{query}\n{answer}\n\nWrite the name of the object only."
    ),
}
"""After the paper (section 4.2) and the released script, in our words: what is asked, and where the
query and its answer stand. A file with the letter of another prompt can be given instead."""

NEW_TOKENS = 10
"""Length of an answer; the released script's value."""

Generate = Callable[[Sequence[str]], list[str]]


def template(prompt: str) -> str:
    """A prompt by its name in `PROMPTS`, or from a file that holds `{query}`.

    Raises:
        ConfigError: no such prompt or file, or the file has other fields than query and answer.
    """
    if prompt in PROMPTS:
        return PROMPTS[prompt]
    path = Path(prompt)
    if not path.is_file():
        raise ConfigError(f"--prompt {prompt}: must be one of {', '.join(PROMPTS)}, or a text file")
    text = path.read_text(encoding="utf-8")
    try:
        names = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ConfigError(f"--prompt {prompt}: {error}; a brace is written twice") from error
    if "query" not in names or not names <= {"query", "answer"}:
        raise ConfigError(f"--prompt {prompt}: needs {{query}}, and may have {{answer}}")
    return text


def items_of(examples: Iterable[Example], answers: ByQuery[str]) -> list[Item]:
    """What is to be extracted from: each query of each image once, with its answer if known.

    `answers`: by image stem and query.
    """
    items: dict[tuple[str, str], Item] = {}
    for e in examples:
        annotation = e.image.with_suffix(".json")
        item = {
            "query": e.query,
            "outputs": answers.get(e.image.stem, e.query) or "",
            "image": e.image.name,
            "json": annotation.name if annotation.exists() else "",
        }
        items.setdefault(key_of(item), item)
    return list(items.values())


def extract(
    items: Sequence[Item],
    journal: Journal,
    generate: Callable[[], Generate],
    form: str,
    by: str,
    batch_size: int = 16,
) -> Iterator[int]:
    """Ask for the keyword of every item that the journal has none for by `by`; yields how many.

    Batches are those of a run that nobody stopped, so that stopping changes no answer: a batch of
    which anything is missing is asked for again. `generate` is called once, if there is work.
    """
    done = {w.key for w in journal.words if w.origin == EXTRACTED and w.by == by}
    ask: Generate | None = None
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        if any(key_of(item) not in done for item in batch):
            ask = ask or generate()
            prompts = [form.format(query=i["query"], answer=i["outputs"]).strip() for i in batch]
            words = zip(batch, ask(prompts), strict=True)
            journal.add(
                Word(str(item["image"]), item["query"], word.strip(), EXTRACTED, by)
                for item, word in words
                if key_of(item) not in done
            )
        yield len(batch)


def load(path: str, name: str, remedy: str, device: torch.device) -> Generate:
    """A text2text model from a folder, or from the local Hugging Face cache; bf16 on a GPU.

    Args:
        path: where it is; name: what the user called it; remedy: ends the error's sentence.

    Raises:
        ConfigError: it is not there, or is no text2text model.
    """
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForSeq2SeqLM.from_pretrained(
            path,
            local_files_only=True,
            dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"--model {name}: cannot be loaded ({reason}). {remedy}") from error
    model = model.to(device).eval()

    @torch.inference_mode()
    def generate(prompts: Sequence[str]) -> list[str]:
        rows: Any = tokenizer(list(prompts), return_tensors="pt", padding=True).to(device)
        made = model.generate(
            input_ids=rows["input_ids"],
            attention_mask=rows["attention_mask"],
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=1,
        )
        words: list[str] = tokenizer.batch_decode(made, skip_special_tokens=True)
        return words

    return generate
