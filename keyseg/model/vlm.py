"""LLaVA with LoRA on its language model and the two new tokens.

Shapes: B images, L tokens in a row, P image tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoProcessor, BitsAndBytesConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from keyseg.model.packing import Packed
from keyseg.model.sam import WeightsError

PUBLIC = "https://huggingface.co/llava-hf"


def load_llava(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    quantization: str = "none",
    device: torch.device | None = None,
) -> tuple[LlavaForConditionalGeneration, AutoProcessor]:
    """Model and processor from a `save_pretrained` folder or a hub id.

    Args:
        path: folder or hub id.
        dtype: of all weights.
        attention: transformers' attn_implementation.
        quantization: "nf4" keeps the linear layers of the language model in 4 bits on `device`.
        device: only for quantization; otherwise the CPU.

    Raises:
        WeightsError: nothing there, or something that is no LLaVA.
    """
    logging.disable_progress_bar()  # a run has a progress view of its own
    try:
        more = {}
        if quantization != "none":
            config = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=quantization,
                bnb_4bit_compute_dtype=dtype,
                # what is read as a table or runs once per image stays whole
                llm_int8_skip_modules=["vision_tower", "multi_modal_projector", "lm_head"],
            )
            more = {"quantization_config": config, "device_map": {"": device}}
        model = LlavaForConditionalGeneration.from_pretrained(
            path, dtype=dtype, attn_implementation=attention, **more
        )
        return model, AutoProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"LLaVA weights not found: {path} ({reason}). Set model.llava to a folder or hub id "
            f"in the Hugging Face layout ({PUBLIC}); the bundled one: `python -m keyseg.tiny`"
        ) from error


class Vlm(nn.Module):
    """The language side: image features and token rows in, hidden states out."""

    def __init__(
        self,
        llava: LlavaForConditionalGeneration,
        *,
        new_tokens: Sequence[int],
        init_tokens: Sequence[int | None],
        rank: int,
        alpha: float,
        dropout: float,
        targets: Sequence[str],
    ) -> None:
        """`new_tokens`: ids of KEY and SEG; `init_tokens`: the word each row starts from."""
        super().__init__()
        rows = llava.get_input_embeddings().weight.shape[0]
        if max(new_tokens) >= rows:  # LLaVA-1.5's table is padded: there is room already
            llava.resize_token_embeddings(max(new_tokens) + 1, mean_resizing=False)
        tied = llava.config.tie_word_embeddings
        tables = [llava.get_input_embeddings()]
        tables += [] if tied else [llava.get_output_embeddings()]
        for table in tables:
            with torch.no_grad():
                mean = table.weight[: min(new_tokens)].mean(dim=0)
                for new, old in zip(new_tokens, init_tokens, strict=True):
                    table.weight[new] = mean if old is None else table.weight[old]
        wanted = "|".join(targets)
        ids = list(new_tokens)
        trainable = {"embed_tokens": ids} if tied else {"embed_tokens": ids, "lm_head": ids}
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            # CLIP has layers of the same names: the pattern names the language model
            target_modules=rf".*language_model.*\.({wanted})",
            trainable_token_indices=trainable,
        )
        with warnings.catch_warnings():
            # transformers warns of a property that peft 0.21 reads
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            self.peft = get_peft_model(llava, config)
        for parameter in self.parameters():
            half = parameter.dtype in (torch.bfloat16, torch.float16)
            if parameter.requires_grad and half:  # steps of the optimiser vanish in half precision
                parameter.data = parameter.data.float()

    @property
    def llava(self) -> LlavaForConditionalGeneration:
        """The adapted model itself."""
        return self.peft.base_model.model

    def checkpoint_gradients(self) -> None:
        """Compute activations of the language model again in the backward pass: less memory."""
        model = self.llava.model.language_model
        # transformers 5.23 renamed it; the old name warns there and is the only one before
        renamed = getattr(model, "activation_checkpointing_enable", None)
        (renamed or model.gradient_checkpointing_enable)({"use_reentrant": False})

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """CLIP and projector, both frozen: pixels (B, 3, h, w) -> image tokens (B, P, D)."""
        return torch.stack(list(self.llava.get_image_features(pixels).pooler_output))

    def forward(self, packed: Packed, image_tokens: Tensor) -> Tensor:
        """Last hidden states (B, L, D)."""
        dtype = torch.get_autocast_dtype(image_tokens.device.type)
        if not torch.is_autocast_enabled(image_tokens.device.type):
            dtype = image_tokens.dtype
        features = BaseModelOutputWithPooling(pooler_output=list(image_tokens))
        states: Tensor = self.llava.model(
            input_ids=packed.input_ids,
            attention_mask=packed.attention_mask(dtype),
            position_ids=packed.positions,
            mm_encoder_outputs={"image": features},
            use_cache=False,
        ).last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """(M, D) -> (M, V)."""
        out: Tensor = self.llava.lm_head(states)
        return out

    def table(self) -> Tensor:
        """The pre-trained vocabulary table (V, D), detached."""
        module = self.llava.get_input_embeddings()
        weight: Tensor = module.weight
        return weight.detach()

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], image_tokens: Tensor, limit: int, pad: int, eos: int
    ) -> list[list[int]]:
        """Greedy answers: new tokens of each prompt, without the end token.

        image_tokens: (N, P, D), one image for each prompt.
        """
        longest = max(map(len, prompts))
        device = image_tokens.device
        ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
        seen = torch.tensor(
            [[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device
        )
        features = BaseModelOutputWithPooling(pooler_output=list(image_tokens))
        out = self.llava.generate(
            input_ids=ids,
            attention_mask=seen,
            mm_encoder_outputs={"image": features},
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=eos,
        )
        answers = out[:, longest:].tolist()
        return [a[: a.index(eos)] if eos in a else a for a in answers]
