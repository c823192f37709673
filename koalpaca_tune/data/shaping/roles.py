"""Who speaks: the names that roles go by."""

from __future__ import annotations

from typing import Any

from koalpaca_tune.data.shaping.columns import fold
from koalpaca_tune.data.shaping.values import short
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Role

SYSTEM = ("system", "developer", "시스템")
USER = ("user", "human", "prompter", "사용자", "유저", "질문자", "문의자", "고객", "내담자", "질문")
ASSISTANT = (
    *("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "bing", "bard"),
    *("챗봇", "어시스턴트", "인공지능", "답변자", "상담사", "상담원", "답변"),
)
TOOLS = ("tool", "function", "ipython", "observation", "function_call", "tool_call", "function_response", "도구")

ROLES: dict[str, Role] = {
    **dict.fromkeys(SYSTEM, "system"),
    **dict.fromkeys(USER, "user"),
    **dict.fromkeys(ASSISTANT, "assistant"),
}
"""Name of a role (folded) -> the role. Names that do not tell who asks (A, B, 화자1) are not here."""


def role_of(said: Any, what: str, origin: str) -> Role:
    """The role that a name stands for.

    Raises:
        KoalpacaError: a tool's turn (row-tool), or no known role (row-shape).
    """
    name = fold(said) if isinstance(said, str) else None
    role = ROLES.get(name) if name is not None else None
    if role is not None:
        return role
    if name in TOOLS:
        raise tool(f"{what} is {short(repr(said))}", origin)
    raise KoalpacaError(
        "row-shape", f"{what} is {short(repr(said))}.", where=origin, fix=f"Known roles: {', '.join(ROLES)}."
    )


def tool(what: str, origin: str) -> KoalpacaError:
    """The error of a conversation that uses tools."""
    return KoalpacaError(
        "row-tool",
        f"{what}: calls of tools are not learned here.",
        where=origin,
        fix="Take the turns with tools out, if the rest makes sense without them.",
    )
