"""A vision-language model with LoRA on its language model and the two new tokens.

Shapes: B images, N prompts, L tokens in a row, P image tokens of an image, W their width as they
are kept, D hidden size, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from keyseg.data.prefix import Prefix
from keyseg.model.backbones.encoders import Levels
from keyseg.model.packing import PREFIX, Packed, pack


class Vlm(nn.Module):
    """Image features and token rows in, hidden states out. A family says what differs."""

    text: ClassVar[str] = "language_model"
    """What a base calls its language model."""
    sees: ClassVar[tuple[str, ...]] = ("vision_tower", "multi_modal_projector")
    """What made the features that are kept: no part of this module."""

    def __init__(
        self,
        base: PreTrainedModel,
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
        """`base`: a model of transformers for conditional generation; `new_tokens`: ids of KEY and
        SEG, or of SEG alone; `init_tokens`: the word each row starts from, None = drawn with
        `seed`; `whole_tables`: all rows are trained."""
        super().__init__()
        model: Any = base
        for name in self.sees:  # pixels are seen elsewhere (model/encoders.py)
            setattr(model.model, name, nn.Identity())
        rows = model.get_input_embeddings().weight.shape[0]
        if max(new_tokens) >= rows:  # a table may be padded: then there is room already
            model.resize_token_embeddings(max(new_tokens) + 1, mean_resizing=False)
        tables = [model.get_input_embeddings(), model.get_output_embeddings()]
        tied = tables[0].weight is tables[1].weight
        tables = tables[:1] if tied else tables
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
            # an image encoder has layers of the same names: the pattern names the language model
            target_modules=rf".*{self.text}.*\.({wanted})",
            trainable_token_indices=None if whole_tables else trainable,
        )
        with warnings.catch_warnings():
            # transformers warns of a property that peft 0.21 reads
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            self.peft = get_peft_model(model, config)
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
    def base(self) -> Any:
        """The adapted model itself."""
        return self.peft.base_model.model

    @property
    def language_model(self) -> Any:
        """The base's language model."""
        return getattr(self.base.model, self.text)

    def layers(self) -> nn.ModuleList:
        """The decoder layers of the language model."""
        layers: nn.ModuleList = self.language_model.layers
        return layers

    def checkpoint_gradients(self, *, selective: bool) -> None:
        """Compute activations of the language model again in the backward pass: less memory.

        `selective`: but for the two wide products of the MLP, which are half of what there is to
        compute again (torch.utils.checkpoint, selective activation checkpointing).
        """
        config = self.base.config.text_config
        wide = (config.hidden_size, config.intermediate_size)
        kept = {"context_fn": partial(create_selective_checkpoint_contexts, partial(_keep, wide))}
        self.language_model.activation_checkpointing_enable(
            {"use_reentrant": False} | (kept if selective else {})
        )

    def project(self, language: Levels) -> Levels:
        """Kept features, levels (ΣP, W) -> image tokens, levels (ΣP, D)."""
        return language

    def seen(self, tokens: Levels) -> BaseModelOutputWithPooling:
        """Image tokens in the form in which the base takes ones that were computed before."""
        return BaseModelOutputWithPooling(pooler_output=[tokens[0]])

    def forward(self, packed: Packed, language: Levels) -> Tensor:
        """Last hidden states (B, L, D) of rows; language: levels (ΣP, W) of the rows' images."""
        tokens = self.project(language)
        states: Tensor = self.base.model(
            input_ids=packed.input_ids,
            attention_mask=packed.attention_mask(tokens[0].dtype),
            position_ids=packed.positions,
            mm_encoder_outputs={"image": self.seen(tokens)},
            use_cache=False,
        ).last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """(M, D) -> (M, V)."""
        out: Tensor = self.base.lm_head(states)
        return out

    @property
    def image_token(self) -> int:
        """Stands for an image, or for a part of one."""
        return int(self.base.config.image_token_id)

    def table(self) -> Tensor:
        """The vocabulary table (V, D), detached: pre-trained, unless all of it is trained."""
        module = self.base.get_input_embeddings()
        weight: Tensor = module.weight
        return weight.detach()

    @torch.no_grad()
    def generate(
        self,
        prefixes: Sequence[Prefix],
        questions: Sequence[Sequence[int]],
        language: Levels,
        image_of: Tensor,
        limit: int,
        pad: int,
        eos: int,
    ) -> list[list[int]]:
        """Greedy answers: new tokens of each prompt, prefix and question, without the end token.

        The token that stands for an image is never said: read again, it would stand for one. A
        prefix, which holds the image, is read once; its keys and values serve all the image's
        questions. Positions go on at its end, whatever its length and its axes.

        Args:
            prefixes: of the B images: tokens before every question, the image's places among them.
            questions: tokens of N questions.
            language: levels (ΣP, W) of the images.
            image_of: (N,), the image of each question.
            limit: of new tokens.
            pad: fills rows of unlike length; not seen.
            eos: ends an answer.
        """
        device = image_of.device
        tokens = self.project(language)
        kind = tokens[0].dtype
        packed = pack(prefixes, [[] for _ in prefixes], pad)[0].to(device)
        cache = DynamicCache(config=self.base.config.text_config)
        self.base.model(
            input_ids=packed.input_ids,
            attention_mask=packed.attention_mask(kind),
            position_ids=packed.positions,
            mm_encoder_outputs={"image": self.seen(tokens)},
            cache=cache,
            use_cache=True,
        )
        cache.batch_select_indices(image_of)
        longest = max(map(len, questions))
        fills = [longest - len(q) for q in questions]
        ids = torch.tensor(
            [[pad] * f + list(q) for f, q in zip(fills, questions, strict=True)], device=device
        )
        place = torch.arange(longest, device=device) - torch.tensor(fills, device=device)[:, None]
        ends = torch.tensor([prefix.end for prefix in prefixes], device=device)[image_of]
        before = (packed.segments == PREFIX)[image_of]
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        itself = torch.eye(longest, dtype=torch.bool, device=device)  # no softmax over nothing
        own = (causal & (place >= 0)[:, None]) | itself
        visible = torch.cat([before[:, None].expand(-1, longest, -1), own], dim=-1)
        positions = ends[:, None] + place.clamp(min=0)
        answers = torch.empty(len(ids), 0, dtype=torch.long, device=device)
        done = torch.zeros(len(ids), dtype=torch.bool, device=device)
        for _ in range(limit):
            states = self.base.model(
                input_ids=ids,
                attention_mask=_additive(visible, kind),
                position_ids=positions,
                cache=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            scores = self.logits(states)
            scores[:, self.image_token] = -torch.inf  # where no image is, none is read
            word = scores.argmax(dim=-1)
            answers = torch.cat([answers, word[:, None]], dim=1)
            done |= word == eos
            if bool(done.all()):
                break
            ids, positions = word[:, None], positions[:, -1:] + 1
            visible = torch.cat([visible[:, -1:], visible.new_ones(len(ids), 1, 1)], dim=-1)
        rows: list[list[int]] = answers.tolist()
        return [row[: row.index(eos)] if eos in row else row for row in rows]


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, Q, K) True = visible -> (N, 1, Q, K), added to scores."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def _keep(shape: tuple[int, int], _: Any, op: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    """Keep results of `x @ w` with a w of that shape."""
    if op is torch.ops.aten.mm.default and tuple(args[1].shape) == shape:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


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
