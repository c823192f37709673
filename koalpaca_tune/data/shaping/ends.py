"""Begin and end tokens that rendered text carries along, and the error of text that cannot be parsed."""

from __future__ import annotations

from koalpaca_tune.data.shaping.values import short
from koalpaca_tune.errors import KoalpacaError

BEGINS = ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|endoftext|>")
ENDS = (
    *("</s>", "<eos>", "[EOS]", "<|endoftext|>", "<|end_of_text|>"),
    *("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "[|endofturn|]"),
)


def without_begin(text: str) -> str:
    """Text without the begin token and the space that it starts with."""
    text = text.strip()
    for token in BEGINS:
        if text.startswith(token):
            return text[len(token) :].lstrip()
    return text


def without_end(text: str) -> tuple[str, bool]:
    """Text without the end tokens and the space that it ends with, and whether there was one.

    `</s>` also ends struck-through HTML (`<s>옛말</s>`): there it belongs to the text.
    """
    text, ended = text.strip(), False
    while token := next((token for token in ENDS if text.endswith(token)), None):
        if token == "</s>" and text.count("</s>") <= text.count("<s>"):
            break
        text, ended = text[: -len(token)].rstrip(), True
    return text, ended


def unreadable(what: str, origin: str, fix: str = "") -> KoalpacaError:
    """The error of a text that is not, in full, of the format that it starts like."""
    return KoalpacaError("row-text", what, where=origin, fix=fix)


def check_ends(ended: list[bool], needed: bool, heading: str, origin: str) -> None:
    """Whether every answer but the last has its end token, if they have any or need one.

    A heading inside an answer looks just like the next question: only the end token tells them apart.

    Args:
        ended: of each answer that another question follows.
        needed: the format has no turns but with end tokens.
        heading: what marks the next question, for the message.
        origin: for the message.

    Raises:
        KoalpacaError: one is missing (row-text).
    """
    if (needed or any(ended)) and not all(ended):
        raise unreadable(
            f"'{short(heading)}' stands again where the answer before it has no end token: "
            "another question, or a part of the answer?",
            origin,
            "Put the end token (such as </s>) after each answer, or give the turns as a list of messages.",
        )
