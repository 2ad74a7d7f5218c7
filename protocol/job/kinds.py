"""Kinds of jobs: what each is asked with, which models serve it, how many tokens it may read."""

from typing import Final

from protocol.job.terms import Prompt
from protocol.limits import TEMPLATE_TOKENS_MAX, TEXTS_MAX

CHAT: Final = "chat"
COMPLETION: Final = "completion"
EMBED: Final = "embed"
KINDS_SERVED: Final = (CHAT, COMPLETION, EMBED)

MODEL_GENERATES: Final = "generate"
"""The kind of a model that writes: chats and completions."""
MODEL_EMBEDS: Final = "embed"
"""The kind of a model that turns each text into one vector."""


def kind_of(prompt: Prompt) -> str:
    """The kind of job that a prompt is for. Exactly one of its three fields is not empty."""
    given = (bool(prompt.messages), bool(prompt.text), bool(prompt.texts))
    assert sum(given) == 1
    return (CHAT, COMPLETION, EMBED)[given.index(True)]


def model_kind(kind: str) -> str:
    """The kind of model that serves a kind of job."""
    return MODEL_EMBEDS if kind == EMBED else MODEL_GENERATES


def input_tokens_most(kind: str, prompt_bytes: int) -> int:
    """The most tokens that a prompt of so many canonical bytes can be read as.

    A token stands for a byte at least, but for those that a template adds. To each text of an
    `embed` a model adds two, for its beginning and end; a text takes two bytes at least, one of
    them its head, which is no token.
    """
    if kind == EMBED:
        return prompt_bytes + min(TEXTS_MAX, prompt_bytes // 2)
    return prompt_bytes + TEMPLATE_TOKENS_MAX
