"""Records on the terminal: to be read as conversations, or as tokens with the learned ones coloured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.text import Text

from koalpaca_tune.cli.entries import Entry
from koalpaca_tune.cli.show import console
from koalpaca_tune.data.quality.signals import SIGNALS
from koalpaca_tune.data.words import REASONS
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.tokens.encode import Encoder

LEARNED, FRAME = "bold green", "dim"
SPEAKERS = {
    "system": ("시스템 (system)", "bold magenta"),
    "user": ("질문 (user)", "bold cyan"),
    "assistant": ("답변 (assistant)", "bold green"),
}


def coloured(encoded: Encoded, encoder: Encoder) -> Text:
    """The example's tokens as text, special tokens shown; what the loss counts in green."""
    text = Text()
    backend = encoder.vocabulary.backend
    pairs = zip(encoded.ids, encoded.labels, strict=True)
    for learned, group in groupby(pairs, key=lambda pair: pair[1] != NOT_LEARNED):
        ids = [token for token, _ in group]
        part = visible(backend.decode(ids, skip_special_tokens=False))
        if learned and console.color_system is None:
            part = f"⟦{part}⟧"  # a pipe or a log shows no colour
        text.append(part, LEARNED if learned else FRAME)
    return text


def example(encoded: Encoded, encoder: Encoder) -> None:
    """Prints one example under a rule with its origin."""
    counted = f"{len(encoded.ids):,} tokens, {encoded.learned:,} learned"
    console.rule(Text(visible(f"{encoded.origin}  ({counted})")), align="left", style="dim")
    console.print(coloured(encoded, encoder))
    console.print(Text("초록 또는 ⟦ ⟧: 배우는 토큰 (green or in brackets: learned)", style="dim"))
    console.print()


def entry(one: Entry, measured: Mapping[str, Any]) -> Text:
    """A record as a person reads it.

    Args:
        measured: its line of quality.jsonl, or {}.
    """
    text = Text().append(f"── {visible(one.origin)}", "bold")
    told = [part for part in (one.source, one.id) if part]
    text.append(f"  {visible(' · '.join(told))}\n" if told else "\n", "dim")
    if one.reason:
        named = f"{REASONS[one.reason]} ({one.reason})" if one.reason in REASONS else one.reason
        text.append(f"제외 (rejected): {visible(named)}\n", "bold yellow")
        text.append(f"{visible(one.what)}\n")
    if one.conversation:
        for turn in one.conversation.turns:
            _part(text, *SPEAKERS[turn.role], turn.content)
            if turn.context:
                _part(text, "맥락 (context)", "bold", turn.context)
        if one.conversation.dispreferred is not None:
            _part(text, "진 답변 (dispreferred, not learned)", "bold red", one.conversation.dispreferred)
    elif isinstance(one.row, dict):
        for name, value in one.row.items():
            _part(text, visible(name), "bold cyan", _as_text(value))
    else:
        _part(text, "읽은 그대로 (as read)", "bold cyan", _as_text(one.row))
    _signals(text, measured)
    return text


def _signals(text: Text, measured: Mapping[str, Any]) -> None:
    signals, examples = measured.get("signals") or {}, measured.get("examples") or {}
    told = [f"{_name(name)} {_number(value)}" for name, value in signals.items()]
    told += [f"가린 {name} (masked) {count}" for name, count in (measured.get("masked") or {}).items()]
    if told:
        text.append("신호 (signals): ", "bold")
        text.append(visible(", ".join(told)) + "\n", "dim")
    for name, found in examples.items():
        text.append(visible(f"  {_name(name)}: {_as_text(found)}") + "\n", "dim")


def _name(signal: str) -> str:
    return f"{SIGNALS[signal].korean} ({signal})" if signal in SIGNALS else signal


def _part(text: Text, who: str, style: str, said: str) -> None:
    text.append(f"{who}\n", style)
    text.append(f"{visible(said)}\n")


def _number(value: Any) -> str:
    if value is True:
        return "예 (yes)"
    return f"{value:.4g}" if isinstance(value, float) else _as_text(value)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def visible(text: str) -> str:
    """Text without control characters: they could move the cursor or recolour the screen of who looks."""
    return text.translate(_CONTROLS)


_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_CONTROLS |= {0x7F: "␡"} | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
_CONTROLS |= {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
