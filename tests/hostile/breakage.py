"""Input made to break: bytes that are changed, and what a call may do with them.

A call that is given hostile input either takes it or raises one `KoalpacaError`. Anything else is a failure:
another exception, a panic of a Rust library (which is no `Exception`), a message of several lines or of
thousands of characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from koalpaca_tune.errors import KoalpacaError

LONGEST = 2000
"""Characters that one problem may take on the screen."""

NASTY: tuple[bytes, ...] = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x1b[2J",
    b"\r",
    b"\xe2\x80\xae",
    b"\xf4\x90\x80\x80",
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 40,
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b'"',
    b"'",
    b"../../../../etc/passwd",
    b"<script>alert(1)</script>",
    b"{{x}}",
    b"{x.__class__}",
    b"%s%n",
    b"&a [*a]",
    b"!!python/object/apply:os.system [id]",
    b"<<: *a",
    "가".encode(),
    "\u1100\u1161".encode(),
)
"""What readers trip over."""


@dataclass(frozen=True)
class Outcome:
    """What a call did.

    Attributes:
        failure: what should not have happened; "" when nothing did.
        code: of the error that refused the input; "" when it was taken.
    """

    failure: str = ""
    code: str = ""


def attempt(call: Callable[[], object]) -> Outcome:
    """Runs a call on hostile input."""
    try:
        call()
    except KoalpacaError as error:
        for problem in error.problems:
            said = str(problem)
            if "\n" in said:
                return Outcome(f"a message of several lines: {said[:200]!r}")
            if len(said) > LONGEST:
                return Outcome(f"a message of {len(said):,} characters: {said[:200]!r}")
        return Outcome(code=error.problems[0].code)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - that is the question
        return Outcome(f"{type(error).__name__}: {str(error)[:200]}")
    return Outcome()


def changed(seed: bytes, chance: Random, others: Sequence[bytes] = ()) -> bytes:
    """The seed with one to four changes: bytes flipped, cut, repeated, moved, or something nasty put in.

    Args:
        others: more seeds, of which a piece may be put in.
    """
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        _CHANGES[chance.randrange(len(_CHANGES))](data, chance, others)
    return bytes(data)


def _flip(data: bytearray, chance: Random, others: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _byte(data: bytearray, chance: Random, others: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _cut(data: bytearray, chance: Random, others: Sequence[bytes]) -> None:
    start, end = _span(data, chance)
    del data[start:end]


def _end(data: bytearray, chance: Random, others: Sequence[bytes]) -> None:
    del data[chance.randint(0, len(data)) :]


def _repeat(data: bytearray, chance: Random, others: Sequence[bytes]) -> None:
    start, end = _span(data, chance)
    data[end:end] = data[start:end] * chance.randint(1, 3)


def _nasty(data: bytearray, chance: Random, others: Sequence[bytes]) -> None:
    at = chance.randint(0, len(data))
    data[at : at + chance.choice((0, 0, 1, 4))] = chance.choice(NASTY)


def _number(data: bytearray, chance: Random, others: Sequence[bytes]) -> None:
    # lengths and counts of binary formats: little-endian words that lie
    if len(data) >= 8:
        at = chance.randrange(len(data) - 7)
        value = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF))
        size = chance.choice((2, 4, 8))
        data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _piece(data: bytearray, chance: Random, others: Sequence[bytes]) -> None:
    other = chance.choice(others) if others else bytes(data)
    start, end = _span(other, chance)
    at = chance.randint(0, len(data))
    data[at:at] = other[start:end]


def _span(data: Sequence[int], chance: Random) -> tuple[int, int]:
    start = chance.randint(0, len(data))
    return start, min(len(data), start + chance.choice((1, 2, 8, 64, 500)))


_CHANGES = (_flip, _byte, _cut, _end, _repeat, _nasty, _nasty, _number, _piece)


WORDS: tuple[str, ...] = (
    "null",
    "no",
    "0",
    "-1",
    "1e999",
    "9" * 19,
    "9" * 400,
    "0x10",
    "1:30",
    "2020-01-01",
    "''",
    '"\\0"',
    '"\\e[2J"',
    '"\\ud800"',
    "[]",
    "{}",
    "[[[[[[]]]]]]",
    "{a: {b: {c: 1}}}",
    "'{x.__class__}'",
    "'{'",
    "'../../../etc/passwd'",
    "/etc/passwd",
    "'<script>'",
    "&a x",
    "*a",
    "!!python/name:os.system x",
    "!!binary aGk=",
    "? x",
    "|\n  x",
    "'" + "가" * 3000 + "'",
    "true",
    "[가, 1, null]",
)
"""Values that no reader of YAML expects where they stand."""


def changed_lines(seed: str, chance: Random, others: Sequence[str] = ()) -> str:
    """A text of `key: value` lines with one to three changes: values, keys and lines, rarely single characters."""
    lines = seed.split("\n")
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        way = chance.randrange(8)
        line = lines[at]
        if way <= 2:
            key, colon, _ = line.partition(":")
            lines[at] = f"{key}{colon} {chance.choice(WORDS)}"
        elif way == 3:
            del lines[at]
            lines = lines or [""]
        elif way == 4:
            lines.insert(chance.randint(0, len(lines)), line)
        elif way == 5:
            other = chance.choice(others).split("\n") if others else lines
            lines.insert(at, chance.choice(other))
        elif way == 6:
            lines[at] = chance.choice(("  ", "", "- ", "\t")) + line.lstrip()
        else:
            spot = chance.randint(0, len(line))
            lines[at] = line[:spot] + chance.choice(NASTY).decode("utf-8", "replace") + line[spot:]
    return "\n".join(lines)
