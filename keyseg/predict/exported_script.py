"""Ask an exported model: `python predict.py PICTURE QUERY [MASK.png]`.

`keyseg export` puts this file beside what it describes, in keyseg.json. It shows the whole way
from pixels to a mask with plain transformers (and segment_anything, where SAM is its); of keyseg
it uses the class of the fusion variant alone (and the rule for points, where a model has them).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoModelForMaskGeneration,
    AutoProcessor,
)

_CUT = "\0"


class Answer(NamedTuple):
    """text: the answer; words: the likeliest for KEY; mask: bool (H, W); iou: SAM's own guess.

    masks: of a model that was trained on several targets, one for each SEG; mask is their union
    then, words are those of the first, iou is the mean.
    """

    text: str
    words: list[tuple[str, float]]
    mask: np.ndarray[Any, Any]
    iou: float | None
    masks: list[np.ndarray[Any, Any]]


class Exported:
    """A folder that `keyseg export` wrote."""

    def __init__(self, folder: Path) -> None:
        about = self.about = json.loads((folder / "keyseg.json").read_text())
        language = folder / about["language"]
        self.processor = AutoProcessor.from_pretrained(language)
        self.language = AutoModelForImageTextToText.from_pretrained(language).eval()
        self.sam = _load_sam(folder, about)
        state = load_file(folder / "keyseg.safetensors")
        self.fusion = _class(about["fusion"].pop("_target_"))(**about["fusion"]).eval()
        self.fusion.load_state_dict(_part(state, "fusion"))
        self.seg = _mlp(_part(state, "seg_projection"))
        self.key = _mlp(_part(state, "key_projection"))
        self.context = _mlp(_part(state, "context_projection"), "")
        if about["n_keys"]:
            head = _part(state, "keyword_head.project")
            self.keyword = _mlp(head, "" if "weight" in head else "N.")
            if "keyword_head.table" in state:
                self.table = state["keyword_head.table"]
            else:  # the base's own, but for the two rows
                self.table = self.language.get_input_embeddings().weight.detach().float().clone()
                self.table[about["new_ids"]] = state["keyword_head.new_rows"]

    @torch.no_grad()
    def __call__(
        self, picture: Image.Image, query: str, answer: Sequence[int] | None = None
    ) -> Answer:
        """One query on one picture. `answer`: its tokens; None = the model writes it."""
        about, tokenizer = self.about, self.processor.tokenizer
        picture = _rgb(ImageOps.exif_transpose(picture))
        seen = dict(self._see(picture))
        image = seen.pop("input_ids")[0].tolist()
        head = tokenizer(about["head"])["input_ids"]
        form = about["sentence" if query.rstrip().endswith((".", "?", "!")) else "phrase"]
        ask = self._ids(form.replace("{query}", _cut(query, tokenizer)))
        asked = head + image + ask
        kinds = seen.pop("mm_token_type_ids", None)  # of families that turn an image by its places
        pixels = self._pixels(seen)
        if answer is None:
            answer = self._write(asked, self._kinds(kinds, head, ask) | pixels)
        ids = list(answer)
        states = self.language.model(
            input_ids=torch.tensor([asked + ids]),
            **self._kinds(kinds, head, ask + ids),
            **pixels,
        ).last_hidden_state[0]
        text = tokenizer.decode(ids)
        places = self._places(len(asked), ids)
        nothing = np.zeros((picture.height, picture.width), bool)
        token = self.language.config.image_token_id
        masks, ious = [], []
        levels = self.sam.see(picture)
        for keys, seg in places:
            if seg is None or about["rej_id"] in ids:
                continue
            if not keys and self.fusion.uses_key:
                masks.append(nothing)
                continue
            prompts = self._prompt(states.float(), keys, seg)[:, None]
            if about["points"]:
                grid = states[: len(head) + len(image)].float()[torch.tensor(head + image) == token]
                size = picture.height, picture.width
                prompts = torch.cat([self._points(grid, states.float(), seg, size), prompts], dim=1)
            drawn = self.sam(levels, prompts)
            limit = about["object_threshold"]
            if limit is not None and drawn.score is not None and float(drawn.score) <= limit:
                continue  # nothing is there
            masks.append(self.sam.at_size(drawn.low, nothing.shape))
            ious.append(float(drawn.iou))
        union = np.logical_or.reduce([nothing, *masks])
        words = self._words(states.float(), places[0][0])
        return Answer(text, words, union, sum(ious) / len(ious) if ious else None, masks)

    def _places(self, start: int, ids: Sequence[int]) -> list[tuple[list[int], int | None]]:
        """Where KEYs and SEG of each mask are in an answer that begins at `start`; none: no KEY."""
        about = self.about
        count = about["n_keys"]
        keys, segs = (
            [start + n for n, i in enumerate(ids) if i == about[token]]
            for token in ("key_id", "seg_id")
        )
        if not (about["several_masks"] and segs):
            return [(keys[:count] if len(keys) >= count else [], segs[0] if segs else None)]
        ends = [start - 1, *segs, start + len(ids)]
        places: list[tuple[list[int], int | None]] = []
        for n, seg in enumerate(segs, start=1):
            if about["key_first"]:
                own = [k for k in keys if ends[n - 1] < k < seg][-count or len(keys) :]
            else:
                own = [k for k in keys if seg < k < ends[n + 1]][:count]
            places.append((own if len(own) == count else [], seg))
        return places

    def _see(self, picture: Image.Image) -> Any:
        """What the processor makes of a picture: its middle, or all of it, padded or squashed."""
        processor, view, more = self.processor.image_processor, self.about["clip_view"], {}
        if view == "pad":
            side = max(picture.size)
            fill = tuple(round(255 * c) for c in processor.image_mean)
            square = Image.new("RGB", (side, side), fill)
            square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
            picture = square
        elif view == "squash":
            crop = processor.crop_size
            size = {"height": int(crop["height"]), "width": int(crop["width"])}
            more = {"size": size, "do_center_crop": False}
        text, options = [self.about["placeholder"]], {**self.about["reads"], **more}
        return self.processor(
            text=text, images=[picture], return_tensors="pt", add_special_tokens=False, **options
        )

    def _pixels(self, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the model takes of a picture, in the type of its weights."""
        seen = {name: tensor for name, tensor in seen.items() if name != "attention_mask"}
        dtype = self.language.dtype
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in seen.items()}

    @staticmethod
    def _kinds(image: Tensor | None, before: list[int], after: list[int]) -> dict[str, Tensor]:
        """Which tokens are an image's (1), for families that ask; the others are text (0)."""
        if image is None:
            return {}
        text = (torch.zeros(1, len(ids), dtype=image.dtype) for ids in (before, after))
        return {"mm_token_type_ids": torch.cat([next(text), image, next(text)], dim=1)}

    def _ids(self, text: str) -> list[int]:
        """Tokens of a text, piece by piece where it is cut."""
        tokenizer = self.processor.tokenizer
        pieces = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in text.split(_CUT)]
        return [i for piece in pieces for i in piece]

    def _write(self, asked: list[int], seen: dict[str, Tensor]) -> list[int]:
        """The answer's tokens, greedily, without the end token."""
        end = self.processor.tokenizer.eos_token_id
        pad = self.processor.tokenizer.pad_token_id
        out = self.language.generate(
            input_ids=torch.tensor([asked]),
            attention_mask=torch.ones(1, len(asked), dtype=torch.long),
            max_new_tokens=self.about["max_new_tokens"],
            do_sample=False,
            repetition_penalty=1.0,
            suppress_tokens=[self.language.config.image_token_id],
            pad_token_id=end if pad is None else pad,
            eos_token_id=end,
            **seen,
        )
        answer: list[int] = out[0, len(asked) :].tolist()
        return answer[: answer.index(end)] if end in answer else answer

    def _prompt(self, states: Tensor, keys: list[int], seg: int) -> Tensor:
        """Hidden states (L, D) -> SAM's prompt (1, C): project, then fuse."""
        before = self.about["reads_state_before_token"]
        nothing = torch.zeros(1, 0, self.about["fusion"]["dim"])
        query = self.seg(states[[seg - before]]) if self.seg else nothing.sum(1)
        key = self.key(states[[k - before for k in keys]])[None] if self.key else nothing
        context = self.context(states)[None] if self.context else nothing
        place = torch.arange(context.shape[1])[None]
        seen = place < seg - before
        if not self.fusion.key_in_context:
            for k in keys:
                seen &= (place != k) & (place != k - before)
        prompt: Tensor = self.fusion(query, key, context, seen)
        return prompt

    def _points(self, grid: Tensor, states: Tensor, seg: int, size: tuple[int, int]) -> Tensor:
        """Prompts (1, n, C) of the points where image tokens (P, D) are like SEG's state."""
        from keyseg.config import PointsConfig  # else nothing of that is imported
        from keyseg.model.points import points_of

        likeness = grid @ states[seg - self.about["reads_state_before_token"]]
        points, labels = points_of(likeness, size, PointsConfig(**self.about["points"]))
        prompts: Tensor = self.sam.points(points, labels, size)
        return prompts

    def _words(self, states: Tensor, keys: list[int]) -> list[tuple[str, float]]:
        """The five likeliest words for KEY."""
        if not keys:
            return []
        about, table = self.about, self.table
        read = states[[k - about["reads_state_before_token"] for k in keys]]
        asked = self.keyword(read) if self.keyword else read
        if about["similarity"] == "cosine":
            asked, table = F.normalize(asked, dim=-1), F.normalize(table, dim=-1)
        p = (asked @ table.T / about["temperature"]).softmax(-1).mean(0).topk(5)
        return [
            (self.processor.tokenizer.decode([i]).strip(), float(v))
            for v, i in zip(*p, strict=True)
        ]


class Decoded(NamedTuple):
    """low: logits of a mask (1, 1, 4E, 4E); iou: SAM's own guess; score: whether something is
    there, of those that say so."""

    low: Tensor
    iou: Tensor
    score: Tensor | None


class PaddedSam:
    """segment_anything's: an image's longest side is brought to its square, which is padded."""

    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]

    def __init__(self, model: Any, side: int) -> None:
        self.model, self.side = model, side

    def see(self, picture: Image.Image) -> Any:
        """What its encoder says of a picture."""
        return self.model.image_encoder(self.square(picture))

    def points(self, points: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Prompts (1, n + 1, C) of points (n, 2) of a picture."""
        _, small = self._sizes(*size)
        scaled = points * torch.tensor([small[1] / size[1], small[0] / size[0]])
        prompts: Tensor = self.model.prompt_encoder(
            points=(scaled[None], labels[None]), boxes=None, masks=None
        )[0]
        return prompts

    def __call__(self, seen: Any, prompts: Tensor) -> Decoded:
        """The mask of prompts (1, P, C)."""
        _, dense = self.model.prompt_encoder(points=None, boxes=None, masks=None)
        low, iou = self.model.mask_decoder(
            image_embeddings=seen,
            image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return Decoded(low, iou, None)

    def square(self, picture: Image.Image) -> Tensor:
        """(1, 3, S, S)."""
        size, small = self._sizes(picture.height, picture.width)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        if small != size:
            pixels = F.interpolate(
                pixels, small, mode="bilinear", align_corners=False, antialias=True
            )
        pixels = (pixels - self.mean) / self.std
        return F.pad(pixels, (0, self.side - small[1], 0, self.side - small[0]))

    def at_size(self, low: Tensor, size: tuple[int, int]) -> np.ndarray[Any, Any]:
        """Logits of the square -> mask of the picture, bool (H, W)."""
        _, (height, width) = self._sizes(*size)
        large = F.interpolate(low, self.side, mode="bilinear", align_corners=False)
        own = F.interpolate(large[..., :height, :width], size, mode="bilinear", align_corners=False)
        return (own[0, 0] > 0).numpy()

    def _sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of a picture, and in the square."""
        scale = self.side / max(height, width)
        return (height, width), (int(height * scale + 0.5), int(width * scale + 0.5))


class PaddedHq(PaddedSam):
    """SAM-HQ, by transformers."""

    def see(self, picture: Image.Image) -> Any:
        """See `PaddedSam`."""
        embedding, early = self.model.get_image_embeddings(self.square(picture))
        return embedding, {"hq_token_only": False, "intermediate_embeddings": early}

    def __call__(self, seen: Any, prompts: Tensor) -> Decoded:
        """See `PaddedSam`."""
        embedding, more = seen
        empty = self.model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        low, iou, *others = self.model.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=self.model.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompts[:, None],
            dense_prompt_embeddings=empty.expand_as(embedding),
            multimask_output=False,
            **more,
        )
        return Decoded(low[:, 0], iou, others[-1] if len(others) > 1 else None)


class SquashedSam(PaddedHq):
    """SAM 2, or SAM 3's tracker, by transformers: a picture is squashed to its square."""

    def __init__(self, model: Any, side: int, processor: Any) -> None:
        super().__init__(model, side)
        self.processor = processor

    def see(self, picture: Image.Image) -> Any:
        """See `PaddedSam`."""
        pixels = self.processor([picture], return_tensors="pt")["pixel_values"]
        *maps, embedding = self.model.get_image_embeddings(pixels)
        return embedding, {"high_resolution_features": maps}

    def at_size(self, low: Tensor, size: tuple[int, int]) -> np.ndarray[Any, Any]:
        """See `PaddedSam`."""
        own = F.interpolate(low, size, mode="bilinear", align_corners=False)
        return (own[0, 0] > 0).numpy()


def _class(target: str) -> type[nn.Module]:
    """The fusion's class: keyseg's, or of a package that KEYSEG_PACKAGES (a,b) allows.

    Raises:
        SystemExit: keyseg.json names something else. It is not imported.
    """
    allowed = ["keyseg", *os.environ.get("KEYSEG_PACKAGES", "").split(",")]
    if target.partition(".")[0] not in allowed:
        raise SystemExit(f"keyseg.json names {target}: allow its package with KEYSEG_PACKAGES=...")
    module, _, name = target.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise SystemExit(f"keyseg.json names {target}: no module of torch")
    return cls


def _rgb(picture: Image.Image) -> Image.Image:
    """8 bits of RGB; Pillow would cut 16 bits of grey off."""
    if picture.mode in ("I", "F"):
        raise SystemExit(f"mode {picture.mode} has no range that says what is white")
    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture).astype(np.uint32) + 128) // 257
        picture = Image.fromarray(grey.astype(np.uint8))
    return picture.convert("RGB")


def _cut(query: str, tokenizer: Any) -> str:
    """The query with each token's name in it ("<image>", "[SEG]") cut in two: it is plain text."""
    names = sorted(map(str, tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    pattern = "|".join(map(re.escape, names))
    return re.sub(pattern, lambda name: name[0][:1] + _CUT + name[0][1:], query, flags=re.I)


def _load_sam(folder: Path, about: dict[str, Any]) -> PaddedSam:
    if about["sam_type"] == "transformers":
        model = AutoModelForMaskGeneration.from_pretrained(folder / about["sam"]).eval()
        side = int(model.prompt_encoder.input_image_size)
        if model.config.model_type == "sam_hq":
            return PaddedHq(model, side)
        return SquashedSam(model, side, AutoImageProcessor.from_pretrained(folder / about["sam"]))
    if about["sam_type"] == "folder":  # of no public size
        from keyseg.model.backbones.sam import load_sam  # else nothing of that is imported

        model = load_sam(folder / about["sam"], "folder")
    else:
        from segment_anything import sam_model_registry

        model = sam_model_registry[about["sam_type"]](str(folder / about["sam"])).eval()
    return PaddedSam(model, model.image_encoder.img_size)


def _part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}


def _mlp(state: dict[str, Tensor], middle: str = "N.") -> nn.Sequential | None:
    """Linear layers with ReLU between them, as their weights say; None where there are none."""
    layers: list[nn.Module] = []
    names = [""] if not middle and state else sorted({k.partition(".")[0] for k in state})
    for name in names:
        kinds = ((".".join(filter(None, (name, kind))), kind) for kind in ("weight", "bias"))
        own = {kind: state[key] for key, kind in kinds if key in state}
        width, height = own["weight"].shape[::-1]
        linear = nn.Linear(width, height, bias="bias" in own)
        linear.load_state_dict(own)
        layers += [nn.ReLU(), linear] if layers else [linear]
    return nn.Sequential(*layers) if layers else None


def main() -> None:
    """See the module."""
    if len(sys.argv) not in (3, 4):
        raise SystemExit(f"usage: {sys.argv[0]} PICTURE QUERY [MASK.png]")
    answer = Exported(Path(__file__).resolve().parent)(Image.open(sys.argv[1]), sys.argv[2])
    print(answer.text)
    print(", ".join(f"{word} {p:.2f}" for word, p in answer.words) or "no KEY in the answer")
    print(f"{answer.mask.mean():.1%} of the image, SAM expects IoU {answer.iou}")
    if len(sys.argv) == 4:
        file = Path(sys.argv[3])
        Image.fromarray(answer.mask.astype(np.uint8) * 255).save(file)
        for n, mask in enumerate(answer.masks if len(answer.masks) > 1 else [], start=1):
            Image.fromarray(mask.astype(np.uint8) * 255).save(
                file.with_name(f"{file.stem}-{n}{file.suffix}")
            )


if __name__ == "__main__":
    main()
