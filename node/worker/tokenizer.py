"""Prompts to ids and ids to text, with control tokens from the template alone."""

import re
from collections.abc import Sequence
from pathlib import Path

from node.worker.gguf import GgufFile, read_gguf
from node.worker.gguf_vocabulary import gguf_vocabulary
from node.worker.json_vocabulary import json_vocabulary
from node.worker.pipe import File
from node.worker.template import ChatTemplate
from node.worker.template_file import template_file
from node.worker.text_stream import TextStream
from node.worker.vocabulary import Encode, Vocabulary
from node.worker.weight_file import bad_model
from protocol.errors import Code, LocalError


class ModelTokenizer:
    """The tokens of one model. `chat_template`, where it is not empty, stands for the model's."""

    def __init__(self, vocabulary: Vocabulary, chat_template: str = "") -> None:
        """Raises LocalError BAD_MODEL for a template that is no Jinja."""
        self._all = vocabulary
        self._control_ids = frozenset(vocabulary.control.values())
        longest = sorted(vocabulary.control, key=len, reverse=True)
        self._cut = re.compile("|".join(map(re.escape, longest)) or "$^")
        source = chat_template or vocabulary.template
        variables = dict(vocabulary.variables)
        self._template = ChatTemplate(source, variables, longest) if source else None
        self._limit = len(vocabulary.spelled)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._all.ends

    @property
    def vocabulary(self) -> int:
        """One more than the largest id that there is."""
        return len(self._all.spelled)

    def check_fits(self, vocabulary: int) -> None:
        """Raises LocalError BAD_MODEL where the weights have fewer tokens than a text may need.

        They may have more: rows that were added for the sake of round numbers, which are spelled
        as nothing. They may lack control tokens, as Gemma 3's smallest has none for pictures: then
        a template that writes one is refused.
        """
        spelled, begins = self._all.spelled, self._all.begins
        beyond = [n for n in range(vocabulary, len(spelled)) if spelled[n] or n in begins]
        if beyond:
            raise bad_model(
                self._all.path,
                f"it has a token {beyond[-1]} and the weights have {vocabulary} of them",
            )
        self._limit = vocabulary

    def chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """The ids of a chat of (role, text) pairs, as the model's template writes it.

        Raises LocalError BAD_REQUEST: the model has no template, or it refuses the messages.
        """
        if self._template is None:
            raise LocalError(
                Code.BAD_REQUEST, "The model has no chat template: send it a plain text."
            )
        rendered, mark = self._template.render(messages)
        ids: list[int] = []
        at = 0
        for found in self._cut.finditer(rendered):
            ids += self._piece(rendered[at : found.start()].replace(mark, ""), bool(ids))
            number = self._all.control[found.group()]
            if number >= self._limit:
                raise LocalError(
                    Code.BAD_REQUEST,
                    f"The chat template writes a token {number}, and the weights have {self._limit}"
                    " of them: send a plain text.",
                )
            ids.append(number)
            at = found.end()
        return ids + self._piece(rendered[at:].replace(mark, ""), bool(ids))

    def text(self, text: str) -> list[int]:
        """The ids of a plain text. What looks like a control token in it is only text."""
        return [*self._all.begins, *self._piece(text, False)]

    def stream(self, stops: Sequence[str]) -> TextStream:
        """A decoder for one answer."""
        return TextStream(self._all.spelled, stops)

    def _piece(self, text: str, goes_on: bool) -> list[int]:
        if not text:
            return []
        encode: Encode = self._all.encode_more if goes_on else self._all.encode
        return [number for number in encode(text) if number not in self._control_ids]


def gguf_tokenizer(gguf: GgufFile, chat_template: str = "") -> ModelTokenizer:
    """Built from what a GGUF says. Raises LocalError BAD_MODEL for a vocabulary that is
    inconsistent or of a kind that is not known by name."""
    return ModelTokenizer(gguf_vocabulary(gguf), chat_template)


def open_tokenizer(files: Sequence[File], chat_template: str = "") -> ModelTokenizer:
    """From the file of role tokenizer where a model has one, else from its GGUF; the template is
    the one given, else the file of role template, else the GGUF's.

    Raises LocalError: BAD_MODEL, NOT_FOUND.
    """
    found = template_file(files)
    if any(file.role == "tokenizer" for file in files):
        vocabulary = json_vocabulary(files, found)
    else:
        weights = [file for file in files if file.role == "weights"]
        if len(weights) != 1 or not weights[0].name.lower().endswith(".gguf"):
            raise LocalError(
                Code.BAD_MODEL,
                "This model has no tokenizer: weights that are no GGUF need a file of role "
                "tokenizer (tokenizer.json). Get it again with all of its files.",
            )
        vocabulary = gguf_vocabulary(read_gguf(Path(weights[0].path)))
    return ModelTokenizer(vocabulary, chat_template or found.template)
