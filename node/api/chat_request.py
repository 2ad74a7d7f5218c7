"""From the body of an OpenAI chat request to a ChatJob: strict, and refused by field name."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from node.api.backend import ChatJob
from node.api.failures import BadParameter
from node.api.fields import (
    Fields,
    flag_field,
    integer_field,
    millionths_field,
    object_field,
    text_field,
)
from protocol.errors import Code
from protocol.job.sampling import Sampling
from protocol.limits import (
    BIAS_MAX,
    BIASED_TOKENS_MAX,
    LOGPROBS_MAX,
    MESSAGES_MAX,
    MICROCREDITS_MAX,
    MODEL_NAME_BYTES_MAX,
    OUTPUT_TOKENS_MAX,
    PROMPT_BYTES_MAX,
    STOP_STRING_BYTES_MAX,
    STOP_STRINGS_MAX,
)
from protocol.units import TOKEN_ID_MAX

MODEL_ANY: Final = "auto"
"""The model name that lets the node choose; OpenAI's clients insist on some name."""

_ROLES: Final = {
    "system": "system",
    "developer": "system",  # OpenAI's newer name; the models here know the older one.
    "user": "user",
    "assistant": "assistant",
}
_TAKEN: Final = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "stop", "seed"),
        *("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p"),
        *("repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias"),
        *("logprobs", "top_logprobs", "ayni"),
    }
)
# Labels for OpenAI's own accounts and caches: they change nothing about an answer.
_IGNORED: Final = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})
# What else clients send as a matter of course, with the values that ask for nothing.
_NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "n": (1,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
_MESSAGE_TAKEN: Final = frozenset({"role", "content"})
# An assistant's message that a client echoes from an earlier answer carries these, empty.
_MESSAGE_NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "tool_calls": ([],),
    "annotations": ([],),
}


class ChatRequest(Struct, frozen=True, kw_only=True):
    """What was asked, checked. `provider` is as it was written: an id, its start, or a name.
    `notices` asks for them at once, even before an answer has begun."""

    job: ChatJob
    provider: str = ""
    notices: bool = False
    stream: bool = False
    include_usage: bool = False


def chat_request(body: bytes) -> ChatRequest:
    """Raises BadParameter, which names the field, for all that is wrong or not supported."""
    try:
        fields = msgspec.json.decode(body, type=Fields)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        # The decoder's own words could quote the prompt, and errors are logged by clients.
        raise BadParameter("body", "The body is not a JSON object in UTF-8.") from None
    _check_known(fields)
    stream = flag_field(fields, "stream")
    extras = object_field(
        fields, "ayni", {"provider", "cost_max_microcredits", "notices", "checkable_only"}
    )
    job = ChatJob(
        model=_model(fields),
        messages=_messages(fields),
        stop=_stop(fields),
        sampling=_sampling(fields),
        output_tokens_max=_output_tokens_max(fields),
        seed=integer_field(fields, "seed", 0, (1 << 64) - 1),
        cost_max_microcredits=integer_field(extras, "cost_max_microcredits", 0, MICROCREDITS_MAX),
        checkable_only=flag_field(extras, "checkable_only"),
    )
    return ChatRequest(
        job=job,
        provider=text_field(extras, "provider", 128),
        notices=flag_field(extras, "notices"),
        stream=stream,
        include_usage=_include_usage(fields, stream),
    )


def _check_known(fields: Fields) -> None:
    for name, value in fields.items():
        if name in _TAKEN or name in _IGNORED or value is None:
            continue
        if name not in _NEUTRAL:
            shown = name if len(name) <= 64 else name[:64] + "..."
            raise BadParameter(shown, f"There is no parameter {shown!r} here.")
        if not _equals_one(value, _NEUTRAL[name]):
            raise BadParameter(
                name,
                f"{name!r} is not supported yet beyond its default; leave it out. Supported are: "
                f"{', '.join(sorted(_TAKEN))}.",
            )


def _equals_one(value: object, allowed: Sequence[object]) -> bool:
    # True equals 1 in Python, and must not here.
    return any(type(value) is type(other) and value == other for other in allowed)


def _messages(fields: Fields) -> tuple[tuple[str, str], ...]:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= MESSAGES_MAX:
        raise BadParameter(
            "messages", f"'messages' must be a list of 1 to {MESSAGES_MAX} messages."
        )
    pairs = tuple(_message(message, f"messages[{i}]") for i, message in enumerate(messages))
    size = sum(len(text.encode()) for _, text in pairs)
    if size > PROMPT_BYTES_MAX:
        raise BadParameter(
            "messages",
            f"The messages have {size} bytes of text; at most {PROMPT_BYTES_MAX} are taken.",
            Code.TOO_LARGE,
        )
    return pairs


def _message(message: object, place: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise BadParameter(place, f"{place} must be an object with 'role' and 'content'.")
    for name, value in message.items():
        if name in _MESSAGE_TAKEN or value is None:
            continue
        if not _equals_one(value, _MESSAGE_NEUTRAL.get(name, ())):
            raise BadParameter(f"{place}.{name}"[:96], f"{place}: {name[:64]!r} is not supported.")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        known = ", ".join(_ROLES)
        raise BadParameter(f"{place}.role", f"{place}.role must be one of: {known}.")
    return _ROLES[role], _content(message.get("content"), f"{place}.content")


def _content(content: object, place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadParameter(place, f"{place} must be a string or a list of text parts.")
    texts = []
    for i, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise BadParameter(
                f"{place}[{i}]", f"{place}[{i}]: only parts of type 'text' are taken."
            )
        text = part.get("text")
        if not isinstance(text, str):
            raise BadParameter(f"{place}[{i}].text", f"{place}[{i}].text must be a string.")
        texts.append(text)
    return "".join(texts)


def _model(fields: Fields) -> str:
    model = text_field(fields, "model", MODEL_NAME_BYTES_MAX)
    return "" if model == MODEL_ANY else model


def _stop(fields: Fields) -> tuple[str, ...]:
    stop = fields.get("stop")
    strings = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(strings, list) or len(strings) > STOP_STRINGS_MAX:
        raise BadParameter(
            "stop", f"'stop' must be a string or at most {STOP_STRINGS_MAX} of them."
        )
    for string in strings:
        if not isinstance(string, str) or not 0 < len(string.encode()) <= STOP_STRING_BYTES_MAX:
            raise BadParameter(
                "stop", f"Each string of 'stop' must have 1 to {STOP_STRING_BYTES_MAX} bytes."
            )
    return tuple(strings)


def _sampling(fields: Fields) -> Sampling:
    """OpenAI's defaults; numbers are rounded to millionths, as the wire has them."""
    # A nucleus of nothing keeps the likeliest token, so a top_p of 0 is the smallest above it.
    top_p = max(1, millionths_field(fields, "top_p", (0, 1), 1))
    return Sampling(
        temperature_millionths=millionths_field(fields, "temperature", (0, 2), 1),
        top_p_millionths=top_p,
        min_p_millionths=millionths_field(fields, "min_p", (0, 1), 0),
        top_k=integer_field(fields, "top_k", 0, 1 << 20) or 0,
        repetition_penalty_millionths=max(
            1, millionths_field(fields, "repetition_penalty", (0, 10), 1)
        ),
        frequency_penalty_millionths=millionths_field(fields, "frequency_penalty", (-2, 2), 0),
        presence_penalty_millionths=millionths_field(fields, "presence_penalty", (-2, 2), 0),
        bias=_bias(fields),
        logprobs=_logprobs(fields),
    )


def _bias(fields: Fields) -> tuple[tuple[int, int], ...]:
    biases = fields.get("logit_bias")
    if biases is None:
        return ()
    if not isinstance(biases, dict) or len(biases) > BIASED_TOKENS_MAX:
        raise BadParameter(
            "logit_bias", f"'logit_bias' must be an object of at most {BIASED_TOKENS_MAX} tokens."
        )
    for token in biases:
        # "07" would be another name of token 7, which may be there too.
        if not re.fullmatch(r"0|[1-9]\d{0,9}", token, re.ASCII) or int(token) > TOKEN_ID_MAX:
            raise BadParameter(
                "logit_bias", "Each name in 'logit_bias' must be the id of a token, like \"50\"."
            )
    named = {f"logit_bias.{token}": bias for token, bias in biases.items()}
    millionths = {
        int(token): millionths_field(named, f"logit_bias.{token}", (-BIAS_MAX, BIAS_MAX), 0)
        for token in biases
    }
    return tuple(sorted((token, bias) for token, bias in millionths.items() if bias))


def _logprobs(fields: Fields) -> int:
    """OpenAI counts the likeliest beside the token itself; the network counts both."""
    top = integer_field(fields, "top_logprobs", 0, LOGPROBS_MAX - 1)
    asked = flag_field(fields, "logprobs")
    if top and not asked:
        raise BadParameter("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.")
    return 1 + (top or 0) if asked else 0


def _output_tokens_max(fields: Fields) -> int | None:
    old = integer_field(fields, "max_tokens", 1, OUTPUT_TOKENS_MAX)
    new = integer_field(fields, "max_completion_tokens", 1, OUTPUT_TOKENS_MAX)
    if old is not None and new is not None and old != new:
        raise BadParameter("max_tokens", "'max_tokens' and 'max_completion_tokens' differ.")
    return old if new is None else new


def _include_usage(fields: Fields, stream: bool) -> bool:
    if fields.get("stream_options") is not None and not stream:
        raise BadParameter("stream_options", "'stream_options' needs 'stream' to be true.")
    # Padding against traffic analysis has no use on loopback, so the wish is taken and moot.
    options = object_field(fields, "stream_options", {"include_usage", "include_obfuscation"})
    return flag_field(options, "include_usage")
