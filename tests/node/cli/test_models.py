"""`ayni models add`: a model of one's own in the catalogue, from the command line."""

import json

from node.models.catalogue import load_catalogue
from tests.tiny_model import tiny_gguf


def test_a_file_is_added_once_and_then_known(command, tmp_path):
    file = tmp_path / "my-model.gguf"
    file.write_bytes(tiny_gguf(1))
    told = json.loads(command("models", "add", str(file), "--licence", "MIT", "--json").stdout)
    model = load_catalogue(command.home / "models.toml").find("my-model")
    assert told == {"name": "my-model", "model": model.model_id.hex()}
    assert model.licence == "MIT"
    again = command("models", "add", str(file))
    assert again.exit_code == 1
    assert "has a model my-model already" in again.stderr
    named = command("models", "add", str(file), "--name", "other")
    assert named.exit_code == 0
    assert "name it in `models` under [share]" in named.stdout
    fetched = command("models", "--fetch", "other")
    assert fetched.exit_code == 0
    assert str(file) in fetched.stdout


def test_what_is_not_there_is_said_with_what_to_do(command):
    command.environment["HF_HUB_CACHE"] = str(command.home / "hub")
    done = command("models", "add", "andes/oca")
    assert done.exit_code == 1
    assert "hf download andes/oca" in done.stderr
    assert not (command.home / "models.toml").exists()
