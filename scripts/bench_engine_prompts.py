"""What is asked to see whether guessing tokens ahead wins: prompts of four kinds."""

from typing import Final

PASSAGE: Final = (
    "Lake Titicaca lies in the Andes, on the border of Bolivia and Peru. Its surface is 3,812 "
    "metres above the sea. Twenty-seven rivers flow into Lake Titicaca, and only one, the "
    "Desaguadero, flows out of it. Some forty islands stand in the lake. People of the Uros live "
    "on islands that they weave from totora reeds. They also build their boats from totora reeds."
)
CODE: Final = """def total(prices, tax):
    result = 0
    for price in prices:
        result = result + price
    result = result + result * tax
    return result

def average(prices):
    result = 0
    for price in prices:
        result = result + price
    return result / len(prices)
"""
PROMPTS: Final = {
    "copy": (
        f"Repeat the following text exactly, word for word:\n\n{PASSAGE}",
        f"Write this program again without any change:\n\n{CODE}",
    ),
    "edit": (
        f"In this program, rename the variable `result` to `amount`. Give all of it:\n\n{CODE}",
        f"Correct the spelling of this text and give all of it:\n\n{PASSAGE}",
    ),
    "summarise": (
        f"Summarise this text in two sentences:\n\n{PASSAGE}",
        f"Say in three sentences what this program does:\n\n{CODE}",
    ),
    "chat": (
        "Write a story about a llama that crosses the Andes to bring salt to the coast.",
        "Explain to a child why the sky is blue and why sunsets are red.",
    ),
}
