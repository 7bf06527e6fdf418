"""Checks of a prompt's templates, and of the two tokens, before anything is loaded for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from string import Formatter

from keyseg.config import ConfigError, PromptConfig, TokensConfig

IMAGE_TOKEN = "<image>"
"""The image's place in `prompt.user`."""


def check_templates(prompt: PromptConfig, tokens: TokensConfig) -> None:
    """Whether every template has the fields that it needs, and none that nobody fills.

    Raises:
        ConfigError: one has not; names the key and the template.
    """
    before, marker, after = prompt.user.partition(IMAGE_TOKEN)
    if not marker or "{question}" not in after or IMAGE_TOKEN in after:
        raise ConfigError(
            f"prompt.user={prompt.user!r}: needs {IMAGE_TOKEN} once, then {{question}}"
        )
    _check_fields("prompt.user", after, needed="question")
    for key, text in (("prompt.system", prompt.system + before), ("prompt.end", prompt.end)):
        if IMAGE_TOKEN in text:
            raise ConfigError(
                f"{key}: {text!r} holds {IMAGE_TOKEN}, which stands in prompt.user alone"
            )
    _check_fields("prompt.assistant", prompt.assistant)
    forms = {"prompt.short": prompt.short, "prompt.long": prompt.long}
    for key, templates in (*forms.items(), ("prompt.answers", prompt.answers)):
        if not templates:
            raise ConfigError(f"{key} is empty: give one template")
    for key, templates in forms.items():
        for template in templates:
            _check_fields(key, template, needed="query")
    if prompt.test:
        _check_fields("prompt.test", prompt.test, needed="query")
    for answer in prompt.answers:
        _check_fields("prompt.answers", answer, needed="tokens", also=("text",))
        if -1 < answer.find("{text}") < answer.find("{tokens}"):
            raise ConfigError(
                f"prompt.answers: {answer!r} names the target before the tokens, which tells "
                "the model what it is to find; put {text} after {tokens}"
            )
    _check_fields("prompt.each", prompt.each, needed="tokens", also=("text",))
    for name, token in _tokens(tokens):
        around = (prompt.system, prompt.user, prompt.assistant, prompt.end)
        within = (*prompt.answers, *prompt.short, *prompt.long)
        for text in (*around, *within, prompt.test, prompt.each, prompt.between):
            if token in text:
                raise ConfigError(
                    f"model.tokens.{name}={token}: the prompt has it, too ({text!r}); give the "
                    "token another text"
                )


def check_tokens(
    tokens: TokensConfig,
    words: Collection[str],
    added: Collection[str],
    reserved: Collection[str | None],
) -> None:
    """Whether KEY and SEG are tokens of their own.

    Args:
        tokens: of the config.
        words: all tokens that the base's tokenizer has.
        added: those of them that were added to its vocabulary.
        reserved: those that mean something to the base: the image, the end, padding ...

    Raises:
        ConfigError: one is a word of the base, or one of its own tokens.
    """
    for name, token in _tokens(tokens):
        if token in reserved:
            what = "is one of the base's own tokens"
        elif token in words and token not in added:
            what = "is a word of the base's vocabulary"
        else:
            continue
        raise ConfigError(
            f"model.tokens.{name}={token}: {what}; KEY and SEG must be tokens of their own, like "
            f"[{name.upper()}]"
        )


def _tokens(tokens: TokensConfig) -> Iterator[tuple[str, str]]:
    """Name and text of those that answers hold."""
    if tokens.no_target == "reject":
        yield "rej", tokens.rej
    if tokens.n_keys:
        yield "key", tokens.key
    yield "seg", tokens.seg


def _check_fields(key: str, template: str, needed: str = "", also: Sequence[str] = ()) -> None:
    """A template holds the field it needs, and no other than it may."""
    try:
        names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ConfigError(
            f"{key}: {template!r} is no template ({error}); a brace is written twice"
        ) from error
    allowed = [name for name in (needed, *also) if name]
    if (needed and needed not in names) or not names <= set(allowed):
        fields = ", ".join(f"{{{name}}}" for name in allowed)
        wants = f"needs {{{needed}}}; fields are {fields}" if needed else "has no fields"
        raise ConfigError(f"{key}: {template!r} {wants}")
