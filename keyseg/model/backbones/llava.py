"""LLaVA with LoRA on its language model and the two new tokens.

Shapes: B images, N prompts, L tokens in a row, P image tokens, W width of CLIP, D hidden size,
V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import (
    AutoModel,
    AutoProcessor,
    BitsAndBytesConfig,
    DynamicCache,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from keyseg.model.backbones.sam import WeightsError
from keyseg.model.packing import Packed

_PUBLIC = "https://huggingface.co/llava-hf"


def load_llava(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    quantization: str = "none",
    device: torch.device | None = None,
    part: str = "whole",
) -> tuple[LlavaForConditionalGeneration, AutoProcessor]:
    """Model and processor from a `save_pretrained` folder or a hub id.

    Args:
        path: folder or hub id.
        dtype: of all weights.
        attention: transformers' attn_implementation.
        quantization: "nf4" keeps the linear layers of the language model in 4 bits on `device`.
        device: only for quantization; otherwise the CPU.
        part: "language" leaves CLIP's layers on disk, "vision" those of the language model.

    Raises:
        WeightsError: nothing there, or something that is no LLaVA.
    """
    logging.disable_progress_bar()  # a run has a progress view of its own
    try:
        more = {}
        if quantization != "none":
            bits = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=quantization,
                bnb_4bit_compute_dtype=dtype,
                # what is read as a table or runs once per image stays whole
                llm_int8_skip_modules=[
                    "model.vision_tower",
                    "model.multi_modal_projector",
                    "lm_head",
                ],
            )
            more = {"quantization_config": bits, "device_map": {"": device}}
        config = LlavaConfig.from_pretrained(path, local_files_only=True)
        layers = set_layers(config, part, 0)
        with _quiet():
            model, info = LlavaForConditionalGeneration.from_pretrained(
                path,
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                local_files_only=True,
                **more,
            )
        set_layers(model.config, part, layers)
        for module in model.modules():
            # on CPUs with AVX512-BF16 bitsandbytes 0.50 packs 4-bit weights at the first forward in
            # eval mode, and gives no gradient from then on
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        if missing := sorted(info["missing_keys"]):
            raise ValueError(f"{len(missing)} weights are missing: {', '.join(missing[:3])} ...")
        return model, AutoProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"LLaVA weights not found: {path} ({reason}). Set model.llava to a folder or hub id "
            f"in the Hugging Face layout ({_PUBLIC}); the bundled one: `python -m keyseg.tiny`"
        ) from error


def set_layers(config: LlavaConfig, part: str, count: int) -> int:
    """Set the layers of what `part` leaves out; return how many they were.

    "language" leaves out CLIP's, "vision" the language model's, "whole" nothing.
    """
    if part == "whole":
        return 0
    other = {"language": config.vision_config, "vision": config.text_config}[part]
    before: int = other.num_hidden_layers
    other.num_hidden_layers = count
    return before


def clip_parameters(config: LlavaConfig) -> int:
    """How many parameters CLIP has; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModel.from_config(config.vision_config).parameters())


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports weights of layers that were left out on purpose."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _keep(shape: tuple[int, int], _: Any, op: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    """Keep results of `x @ w` with a w of that shape."""
    if op is torch.ops.aten.mm.default and tuple(args[1].shape) == shape:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


class Vlm(nn.Module):
    """The language side: image features and token rows in, hidden states out."""

    def __init__(
        self,
        llava: LlavaForConditionalGeneration,
        *,
        new_tokens: Sequence[int],
        init_tokens: Sequence[int | None],
        seed: int,
        rank: int,
        alpha: float,
        dropout: float,
        targets: Sequence[str],
        whole_tables: bool = False,
    ) -> None:
        """`new_tokens`: ids of KEY and SEG, or of SEG alone; `init_tokens`: the word each row
        starts from, None = drawn with `seed`; `whole_tables`: all rows are trained."""
        super().__init__()
        llava.model.vision_tower = nn.Identity()  # pixels are seen elsewhere (model/encoders.py)
        rows = llava.get_input_embeddings().weight.shape[0]
        if max(new_tokens) >= rows:  # LLaVA-1.5's table is padded: there is room already
            llava.resize_token_embeddings(max(new_tokens) + 1, mean_resizing=False)
        tied = llava.config.tie_word_embeddings
        tables = [llava.get_input_embeddings()]
        tables += [] if tied else [llava.get_output_embeddings()]
        for number, table in enumerate(tables):
            words = table.weight[: min(new_tokens)]
            drawn = _rows_like(words, len(new_tokens), seed + number)
            with torch.no_grad():
                for new, old, row in zip(new_tokens, init_tokens, drawn, strict=True):
                    table.weight[new] = row if old is None else table.weight[old]
        wanted = "|".join(targets)
        ids = list(new_tokens)
        trainable = {"embed_tokens": ids} if tied else {"embed_tokens": ids, "lm_head": ids}
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            # CLIP has layers of the same names: the pattern names the language model
            target_modules=rf".*language_model.*\.({wanted})",
            trainable_token_indices=None if whole_tables else trainable,
        )
        with warnings.catch_warnings():
            # transformers warns of a property that peft 0.21 reads
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            self.peft = get_peft_model(llava, config)
        self.whole_tables = whole_tables
        for table in tables if whole_tables else ():
            table.weight.requires_grad_(True)
        for module in self.peft.modules():
            if isinstance(module, LoraLayer):
                # autocast narrows inputs to its own type: widened before, they would be cast twice
                module.cast_input_dtype_enabled = False
        for parameter in self.parameters():
            half = parameter.dtype in (torch.bfloat16, torch.float16)
            if parameter.requires_grad and half:  # steps of the optimiser vanish in half precision
                parameter.data = parameter.data.float()

    @property
    def llava(self) -> LlavaForConditionalGeneration:
        """The adapted model itself."""
        return self.peft.base_model.model

    def layers(self) -> nn.ModuleList:
        """The decoder layers of the language model."""
        layers: nn.ModuleList = self.llava.model.language_model.layers
        return layers

    def checkpoint_gradients(self, *, selective: bool) -> None:
        """Compute activations of the language model again in the backward pass: less memory.

        `selective`: but for the two wide products of the MLP, which are half of what there is to
        compute again (torch.utils.checkpoint, selective activation checkpointing).
        """
        config = self.llava.config.text_config
        wide = (config.hidden_size, config.intermediate_size)
        kept = {"context_fn": partial(create_selective_checkpoint_contexts, partial(_keep, wide))}
        self.llava.model.language_model.activation_checkpointing_enable(
            {"use_reentrant": False} | (kept if selective else {})
        )

    @torch.no_grad()
    def project(self, clip: Tensor) -> Tensor:
        """LLaVA's projector, frozen: CLIP's states (B, P, W) -> image tokens (B, P, D)."""
        projector = self.llava.model.multi_modal_projector
        out: Tensor = projector(clip.to(next(projector.parameters()).dtype))
        return out

    def forward(self, packed: Packed, clip: Tensor) -> Tensor:
        """Last hidden states (B, L, D) of rows whose images CLIP saw as `clip` (B, P, W)."""
        image_tokens = self.project(clip)
        states: Tensor = self.llava.model(
            input_ids=packed.input_ids,
            attention_mask=packed.attention_mask(image_tokens.dtype),
            position_ids=packed.positions,
            mm_encoder_outputs=_seen(image_tokens),
            use_cache=False,
        ).last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """(M, D) -> (M, V)."""
        out: Tensor = self.llava.lm_head(states)
        return out

    def table(self) -> Tensor:
        """The vocabulary table (V, D), detached: pre-trained, unless all of it is trained."""
        module = self.llava.get_input_embeddings()
        weight: Tensor = module.weight
        return weight.detach()

    @torch.no_grad()
    def generate(
        self,
        prefix: Sequence[int],
        questions: Sequence[Sequence[int]],
        clip: Tensor,
        image_of: Tensor,
        limit: int,
        pad: int,
        eos: int,
    ) -> list[list[int]]:
        """Greedy answers: new tokens of each prompt `prefix + question`, without the end token.

        The prefix, which holds the image, is read once for each image; its keys and values serve
        all the image's questions.

        Args:
            prefix: tokens before every question, the image's places among them.
            questions: tokens of N questions.
            clip: (B, P, W) of the images.
            image_of: (N,), the image of each question.
            limit: of new tokens.
            pad: fills between prefix and question; not seen.
            eos: ends an answer.
        """
        device = clip.device
        start = torch.tensor([prefix], device=device)
        cache = DynamicCache(config=self.llava.config.text_config)
        self.llava.model(
            input_ids=start.expand(len(clip), -1),
            mm_encoder_outputs=_seen(self.project(clip)),
            cache=cache,
            use_cache=True,
        )
        cache.batch_select_indices(image_of)
        longest = max(map(len, questions))
        fills = [longest - len(q) for q in questions]
        ids = [[*prefix, *[pad] * f, *q] for f, q in zip(fills, questions, strict=True)]
        seen = [[1] * len(prefix) + [0] * f + [1] * (longest - f) for f in fills]
        out = self.llava.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(seen, device=device),
            cache=cache,
            max_new_tokens=limit,
            do_sample=False,
            synced_gpus=False,  # several processes may have different numbers of answers to write
            pad_token_id=pad,
            eos_token_id=eos,
        )
        answers = out[:, len(prefix) + longest :].tolist()
        return [a[: a.index(eos)] if eos in a else a for a in answers]


@torch.no_grad()
def _rows_like(words: Tensor, count: int, seed: int) -> list[Tensor]:
    """Rows (D,) drawn as if they were words (V, D): normal, with each channel's mean and spread.

    Independent of each other, and of all else that is drawn. The last one, SEG's, is the same
    whether or not there is a KEY before it.
    """
    mean, spread = words.float().mean(dim=0), words.float().std(dim=0)
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(words.shape[1], generator=generator) for _ in range(count)]
    return [mean + spread * row.to(words.device) for row in reversed(noise)]


def _seen(image_tokens: Tensor) -> dict[str, BaseModelOutputWithPooling]:
    """Image tokens (B, P, D), as transformers takes them from whoever has them already."""
    return {"image": BaseModelOutputWithPooling(pooler_output=list(image_tokens))}
