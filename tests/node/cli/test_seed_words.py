"""The words of a key: BIP-39's own vectors, any seed and back, and errors that name the word."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from mnemonic import Mnemonic

from node.cli.seed_words import WORDS, check_words, seed_of_words, seed_words, words_typed
from node.keystore import load_key
from protocol.errors import Code, LocalError
from protocol.identity import Identity, Seed
from protocol.ids import node_text

SEEDS = st.binary(min_size=32, max_size=32).map(Seed)
# The 32-byte entropies of BIP-39's English test vectors.
VECTORS = {
    "00" * 32: " ".join(["abandon"] * 23 + ["art"]),
    "7f" * 32: "legal winner thank year wave sausage worth useful legal winner thank year wave "
    "sausage worth useful legal winner thank year wave sausage worth title",
    "80" * 32: "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd "
    "amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless",
    "ff" * 32: " ".join(["zoo"] * 23 + ["vote"]),
    "68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c": "hamster diagram private "
    "dutch cause delay private meat slide toddler razor book happy fancy gospel tennis maple "
    "dilemma loan word shrug inflict delay length",
}


@pytest.mark.parametrize("entropy", VECTORS)
def test_the_words_are_those_of_bip_39(entropy: str) -> None:
    words = VECTORS[entropy].split()
    assert list(seed_words(Seed(bytes.fromhex(entropy)))) == words
    assert seed_of_words(words).hex() == entropy


@given(SEEDS)
def test_any_seed_comes_back_from_its_words(seed: Seed) -> None:
    words = seed_words(seed)
    assert len(words) == WORDS
    typed = "\n".join(f"{number}. {word.upper()}" for number, word in enumerate(words, 1))
    assert seed_of_words(words_typed(typed)) == seed


@given(SEEDS, st.integers(0, WORDS - 1), st.integers(0, WORDS - 1))
def test_two_words_that_changed_places_give_no_seed_or_another(seed, one, other) -> None:
    words = list(seed_words(seed))
    assume(words[one] != words[other])
    words[one], words[other] = words[other], words[one]
    # Of 256 such mistakes the checksum of 8 bits lets one pass: then it is another key.
    if Mnemonic("english").check(" ".join(words)):
        assert seed_of_words(words) != seed
        return
    with pytest.raises(LocalError, match="changed places") as refused:
        seed_of_words(words)
    assert refused.value.code is Code.BAD_KEY


@pytest.mark.parametrize("count", [0, 12, 23, 25])
def test_another_number_of_words_is_refused_with_both_numbers(count: int) -> None:
    with pytest.raises(LocalError, match=f"{count} words came, and a key has 24") as refused:
        seed_of_words(["zoo"] * count)
    assert refused.value.code is Code.BAD_KEY


def test_a_word_that_is_none_is_named_with_its_place_and_those_most_like_it() -> None:
    with pytest.raises(LocalError, match=r"Word 9, 'bananna', .* Do you mean banana") as refused:
        check_words(["zoo", "bananna"], before=7)
    assert refused.value.code is Code.BAD_KEY
    with pytest.raises(LocalError, match=r"'qqqq', is none of the 2,048 words"):
        check_words(["qqqq"])


# The verbs that show them.


def test_init_prints_words_only_when_asked_to(command) -> None:
    quiet = command("init", "--no-passphrase")
    key = command.home / "data" / "node.key"
    words = seed_words(load_key(key, lambda: b""))
    assert not set(words) & set(quiet.output.replace(".", " ").split())
    assert "words" not in json.loads(command("init", "--no-passphrase", "--json").stdout)
    refused = command("init", "--words")
    assert (refused.exit_code, "ayni key words" in refused.stderr) == (2, True)


def test_init_prints_words_that_are_its_key(command) -> None:
    shown = command("init", "--no-passphrase", "--words")
    seed = load_key(command.home / "data" / "node.key", lambda: b"")
    lines = [line for line in shown.stdout.splitlines() if line.lstrip()[:1].isdigit()]
    assert seed_of_words(words_typed("\n".join(lines))) == seed
    told = json.loads(command("key", "words", "--json").stdout)
    assert told == {"node": node_text(Identity(seed).node), "words": list(seed_words(seed))}


def test_init_gives_words_in_json_when_asked_to(command) -> None:
    told = json.loads(command("init", "--no-passphrase", "--json", "--words").stdout)
    seed = seed_of_words(told["words"])
    assert node_text(Identity(seed).node) == told["node"]


def test_the_words_of_an_encrypted_key_need_its_passphrase(command) -> None:
    command.environment["AYNI_PASSPHRASE"] = "long enough"
    assert command("init").exit_code == 0
    del command.environment["AYNI_PASSPHRASE"]
    command.environment["AYNI_PASSPHRASE"] = "wrong"
    refused = command("key", "words")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("BAD_KEY: ")
    command.environment["AYNI_PASSPHRASE"] = "long enough"
    words = json.loads(command("key", "words", "--json").stdout)["words"]
    seed = load_key(command.home / "data" / "node.key", lambda: b"long enough")
    assert seed_of_words(words) == seed
