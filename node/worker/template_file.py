"""The file of a model's chat template: Jinja itself, or the JSON in which transformers keep it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.worker.config_json import Config, read_json
from node.worker.pipe import CHAT_TEMPLATE_BYTES_MAX, File
from node.worker.weight_file import bad_model, open_file


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """What such a file says; "" and None for what it does not."""

    template: str = ""
    first: str = ""  # The token for beginnings, as it is written.
    last: str = ""
    begins: bool | None = None  # Whether a plain text begins with that token.


def template_file(files: Sequence[File]) -> TemplateFile:
    """Of the file of role template, if there is one. Raises LocalError: BAD_MODEL, NOT_FOUND."""
    path = next((Path(file.path) for file in files if file.role == "template"), None)
    name = next((file.name for file in files if file.role == "template"), "")
    if path is None:
        return TemplateFile()
    if not name.endswith(".json"):
        return TemplateFile(template=_jinja(path))
    config = Config(path, read_json(path))
    begins = config.boolean("add_bos_token") if "add_bos_token" in config else None
    return TemplateFile(
        _bounded(path, _named_template(config)),
        _token(config, "bos_token"),
        _token(config, "eos_token"),
        begins,
    )


def _jinja(path: Path) -> str:
    with open_file(path) as file:
        data = file.read(CHAT_TEMPLATE_BYTES_MAX + 1)
    try:
        return _bounded(path, data.decode("utf-8"))
    except UnicodeDecodeError:
        raise bad_model(path, "it is no UTF-8") from None


def _bounded(path: Path, template: str) -> str:
    if len(template.encode("utf-8", "replace")) > CHAT_TEMPLATE_BYTES_MAX:
        raise bad_model(path, f"its template has more than {CHAT_TEMPLATE_BYTES_MAX} bytes")
    return template


def _named_template(config: Config) -> str:
    """One text, or several by their names, of which the default is taken."""
    value = config.values.get("chat_template")
    if not isinstance(value, list):
        return config.text("chat_template", "")
    for item in value:
        if isinstance(item, dict) and item.get("name") == "default":
            return Config(config.path, item).text("template")
    raise bad_model(config.path, "none of its chat templates is the default")


def _token(config: Config, key: str) -> str:
    """A token is a text, or an object that holds it."""
    value = config.values.get(key)
    return config.part(key).text("content") if isinstance(value, dict) else config.text(key, "")
