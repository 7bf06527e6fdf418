"""A language side through transformers' own classes. A family is a subclass of a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PretrainedConfig,
)
from transformers.utils import logging

from keyseg.config import ModelConfig
from keyseg.data.prefix import Prefix, Size
from keyseg.model.backbones.encoders import Levels
from keyseg.model.backbones.vlm import Vlm
from keyseg.model.backbones.weights import WeightsError, weights_path

BROKEN = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError)
"""What a folder that is another family's, or damaged, can raise on its way into a model."""


class Language:
    """A base with its processor; see `keyseg.model.backbones.sides.LanguageSide`."""

    title: ClassVar[str] = "image encoder"
    name: ClassVar[str] = "vision"
    family: ClassVar[str]
    """transformers' `model_type`."""
    vlm: ClassVar[type[Vlm]] = Vlm
    outside: ClassVar[tuple[str, ...]] = ("vision_tower", "multi_modal_projector")
    """Parts of a base beside its language model."""
    takes: ClassVar[tuple[str, ...]] = ("pixel_values",)
    """What of a processor's output the encoder takes."""
    placeholder: ClassVar[str]
    """What stands for an image in a text, for the processor."""
    reads: ClassVar[dict[str, Any]] = {}
    """How a processor reads an image, unless `model.language.view` says otherwise."""
    view = "pad"  # all of an image is seen

    def __init__(self, model: Any, processor: Any, choice: ModelConfig) -> None:
        self.model, self.processor, self.choice = model, processor, choice
        self.options: dict[str, Any] = {**self.reads, **choice.language.get("view", {})}
        """Of the processor: how large images are read, and in how many tiles."""
        self._known: dict[Size, Prefix] = {}

    @property
    def tokenizer(self) -> Any:
        """Of the processor."""
        return self.processor.tokenizer

    @classmethod
    def load(cls, choice: ModelConfig, dtype: torch.dtype, device: torch.device, part: str) -> Self:
        """See `Backbone`."""
        kept = {"dtype": dtype, "attn_implementation": choice.attention}
        path = weights_path(choice.language_weights)
        if choice.init == "random":
            with device:
                model, processor = cls.random(choice, part, **kept)
            return cls(model, processor, choice)
        four = "none" if part == "vision" else choice.quantization
        model, processor = cls.read(path, part, four, device, **kept)
        return cls(model, processor, choice)

    @classmethod
    def read(
        cls, path: str | Path, part: str, quantization: str, device: torch.device, **kept: Any
    ) -> tuple[Any, Any]:
        """Model and processor from a `save_pretrained` folder or the cache; nothing is downloaded.

        Raises:
            WeightsError: nothing there, another family, or something that does not fit.
        """
        logging.disable_progress_bar()  # a run has a progress view of its own
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True)
            if config.model_type != cls.family:
                raise ValueError(f"its config.json says model_type={config.model_type}")
            layers = set_layers(config, part)
            if quantization != "none":
                kept |= cls._in_four_bits(quantization, kept["dtype"], device)
            with quiet():
                model, info = AutoModelForImageTextToText.from_pretrained(
                    path, config=config, output_loading_info=True, local_files_only=True, **kept
                )
            set_layers(model.config, part, layers)
            _mend_quantized(model)
            if missing := sorted(info["missing_keys"]):
                raise ValueError(
                    f"{len(missing)} weights are missing: {', '.join(missing[:3])} ..."
                )
            return model, AutoProcessor.from_pretrained(path, local_files_only=True)
        except torch.OutOfMemoryError:
            raise
        except BROKEN as error:
            raise WeightsError(
                f"{cls.title_of_family()} weights cannot be read: {path} ({first_line(error)}). "
                f"{cls.remedy()}"
            ) from error

    @classmethod
    def random(cls, choice: ModelConfig, part: str, **kept: Any) -> tuple[Any, Any]:
        """Model and processor from `model.sizes`, or from the folder's config where it is empty.

        Built on torch's default device: under `torch.device("meta")` nothing is allocated.

        Raises:
            WeightsError: neither sizes nor a folder with a config, or sizes that do not fit.
        """
        path, sizes = weights_path(choice.language_weights), dict(choice.sizes)
        try:
            if sizes:
                if named := sizes.get("tokenizer"):
                    sizes["tokenizer"] = weights_path(named)
                config, processor = cls.from_sizes(sizes)
            else:
                config = AutoConfig.from_pretrained(path, local_files_only=True)
                processor = AutoProcessor.from_pretrained(path, local_files_only=True)
            layers = set_layers(config, part)
            model = AutoModelForImageTextToText.from_config(config, **kept)
            set_layers(model.config, part, layers)
        except BROKEN as error:
            raise WeightsError(
                f"model.init=random: {type(error).__name__}: {first_line(error)}. Give model.sizes "
                f"(text, vision, tokenizer), or a {cls.key()} with a config (now {path})"
            ) from error
        return model.eval(), processor

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any]) -> tuple[PretrainedConfig, Any]:
        """Config and processor of any size; `tokenizer`: a folder with one, else bytes."""
        raise NotImplementedError

    @classmethod
    def key(cls) -> str:
        """Of the config: where its weights are."""
        return "model.language.weights"

    @classmethod
    def title_of_family(cls) -> str:
        """What people call the family."""
        return cls.__name__

    @classmethod
    def remedy(cls) -> str:
        """What to do where it cannot be read."""
        return (
            f"Set {cls.key()} to a folder or hub id of model_type={cls.family}, whole and in the "
            "Hugging Face layout, or choose the model that fits it (model=NAME)"
        )

    @classmethod
    def _in_four_bits(
        cls, quantization: str, dtype: torch.dtype, device: torch.device
    ) -> dict[str, Any]:
        bits = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization,
            bnb_4bit_compute_dtype=dtype,
            # what is read as a table or runs once per image stays whole
            llm_int8_skip_modules=[*(f"model.{name}" for name in cls.outside), "lm_head"],
        )
        return {"quantization_config": bits, "device_map": {"": device}}

    def seen_with(self) -> dict[str, Any]:
        """See `Backbone`."""
        return {
            "family": self.family,
            "preprocess": self.processor.image_processor.to_dict(),
            "view": self.options,
            "attention": self.choice.attention,
        }

    def encoder_size(self) -> int:
        """See `Backbone`."""
        config = deepcopy(self.model.config)
        set_layers(config, "vision")
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config).model
        setattr(model, self.vlm.text, nn.Identity())
        return sum(p.numel() for p in model.parameters())

    def encoder(self) -> nn.Module:
        """See `Backbone`; the language model is given up for it."""
        setattr(self.model.model, self.vlm.text, nn.Identity())
        return ImageEncoder(self.model.model)

    def pixels(self, picture: Tensor) -> dict[str, Tensor]:
        """See `Backbone`."""
        made = self.processor.image_processor([picture], return_tensors="pt", **self.options)
        return {name: made[name] for name in self.takes if name in made}

    def places(self, size: Size) -> Prefix:
        """See `LanguageSide`; images of a data set come in a few hundred sizes."""
        if size not in self._known:
            self._known[size] = self._places(size)
        return self._known[size]

    def _places(self, size: Size) -> Prefix:
        """As the processor puts them in for a picture of that size."""
        return Prefix.of(self._processed(size)["input_ids"][0].tolist())

    def _processed(self, size: Size) -> Any:
        blank = torch.zeros(3, *size, dtype=torch.uint8)
        text, options = [self.placeholder], {"add_special_tokens": False, **self.options}
        return self.processor(text=text, images=[blank], return_tensors="pt", **options)

    def adapted(self, **options: Any) -> Vlm:
        """See `LanguageSide`."""
        return self.vlm(self.model, **options)

    def save(
        self, vlm: Vlm, folder: Path, new_tokens: Sequence[str], dtype: torch.dtype
    ) -> dict[str, Any]:
        """See `LanguageSide`; the base is read again for what the adapted one was made without."""
        own = folder / self.family
        merged: Any = vlm.peft.merge_and_unload()
        whole = type(self).load(self.choice, torch.float32, torch.device("cpu"), "vision")
        for name in self.vlm.sees:
            setattr(merged.model, name, getattr(whole.model.model, name))
        merged.config.vision_config = whole.model.config.vision_config
        merged.to(dtype).save_pretrained(own)
        whole.tokenizer.add_tokens([AddedToken(text, normalized=False) for text in new_tokens])
        whole.processor.save_pretrained(own)
        return {
            "language": self.family,
            "placeholder": self.placeholder,
            "reads": self.options,
            "clip_view": None,
        }


class ImageEncoder(nn.Module):
    """All of a base but its language model: pixels of one image -> levels (P, D)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **pixels: Tensor) -> Levels:
        """See the class."""
        seen = self.model.get_image_features(**pixels, return_dict=True)
        more = getattr(seen, "deepstack_features", None) or []
        return tuple(_flat(level) for level in (seen.pooler_output, *more))


def _flat(tokens: Tensor | Sequence[Tensor]) -> Tensor:
    """Of all tiles of one image: (P, D)."""
    return torch.cat([part.flatten(0, -2) for part in tokens])


def set_layers(config: Any, part: str, count: int = 0) -> int:
    """Set the layers of what `part` leaves out; return how many they were.

    "language" leaves out the image encoder's, "vision" the language model's, "whole" nothing.
    """
    if part == "whole":
        return 0
    other = {"language": config.vision_config, "vision": config.text_config}[part]
    name = "depth" if hasattr(other, "depth") else "num_hidden_layers"
    before: int = getattr(other, name)
    setattr(other, name, count)
    return before


def first_line(error: Exception) -> str:
    """Of what an error says."""
    return (str(error).strip("'\"").splitlines() or [type(error).__name__])[0]


def _mend_quantized(model: nn.Module) -> None:
    module: Any
    for module in model.modules():
        # on CPUs with AVX512-BF16 bitsandbytes 0.50 packs 4-bit weights at the first forward in
        # eval mode, and gives no gradient from then on
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def quiet() -> Iterator[None]:
    """transformers reports weights of layers that were left out on purpose."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
