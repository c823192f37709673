"""A talk on the terminal: what a person types, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from koalpaca_tune.cli import typing_line
from koalpaca_tune.cli.show import console
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.inference.decoding import Written
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.serving.memory import Memory, Shown, composed, room_of
from koalpaca_tune.serving.settings import Settings

COMMANDS = {
    "/system": "시스템 문장을 보거나 바꿈; '/system -'은 지움 (show, set or clear the system text)",
    "/settings": "설정을 보거나 바꿈: /settings temperature=0.7 top_p=0.9 max_new_tokens=300 (see or change)",
    "/compare": "기반 모델의 답을 나란히 보임, 다시 치면 그만둠 (base beside adapter, on and off)",
    "/reset": "지금까지의 말을 잊음; 시스템 문장과 설정은 남음 (forget what was said)",
    "/help": "이 도움말 (this help)",
    "/exit": "끝냄; Ctrl-D도 됨 (leave)",
}
BESIDE = 72
"""Columns from which two answers stand side by side."""
CLEAR = "-"


class Command(NamedTuple):
    """A line that begins with a slash."""

    name: str
    rest: str


def command(line: str) -> Command | None:
    """A line as a command; None: it is said to the model. `//` says a slash.

    Raises:
        KoalpacaError: a command that is not there (chat-command).
    """
    if not line.startswith("/") or line.startswith("//"):
        return None
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        raise KoalpacaError(
            "chat-command", f"there is no command '{name}'.", fix=did_you_mean(name, list(COMMANDS))
        )
    return Command(name, rest.strip())


@dataclass
class Talk:
    """A person and a model.

    Attributes:
        lm: with its template.
        settings: how answers are written.
        system: text before the first question, or None.
        compare: whether the base answers as well.
    """

    lm: TorchLanguageModel
    settings: Settings
    system: str | None = None
    compare: bool = False
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        """Begins with nothing said."""
        self.memory = Memory(self.lm.encoder, room_of(self.lm.model), self.system)

    def run(self) -> None:
        """Talks until the input ends."""
        self._greet()
        for line in typing_line.lines("나> ", tuple(COMMANDS)):
            text = composed(line.strip())
            if not text:
                continue
            try:
                found = command(text)
                if found is None:
                    self._answer(text.removeprefix("/"))
                elif found.name == "/exit":
                    return
                else:
                    self._obey(found)
            except KoalpacaError as error:
                # a talk outlives a mistake in it
                for problem in error.problems:
                    console.print(Text(f"error [{problem.code}]: {problem}", style="red"))

    def _obey(self, found: Command) -> None:
        match found.name:
            case "/help":
                for name, what in COMMANDS.items():
                    console.print(Text(f"{name:<10}", style="bold"), Text(what), sep="")
            case "/reset":
                self._nothing_more(found)
                self.memory.reset()
                _say("지금까지의 말을 잊었습니다 (forgotten)")
            case "/compare":
                self._nothing_more(found)
                self._switch_compare()
            case "/system":
                self._set_system(found.rest)
            case "/settings":
                self.settings = self.settings.changed(found.rest.split())
                self._show_settings()

    def _nothing_more(self, found: Command) -> None:
        if found.rest:
            raise KoalpacaError("chat-command", f"{found.name} takes nothing after it, found '{found.rest}'.")

    def _switch_compare(self) -> None:
        if not hasattr(self.lm.model, "disable_adapter"):
            raise KoalpacaError(
                "chat-command", "/compare needs an adapter.", fix="Start with --adapter runs/NAME/adapter."
            )
        self.compare = not self.compare
        _say(
            "기반 모델의 답을 함께 보입니다 (with the base)"
            if self.compare
            else "튜닝 모델만 답합니다 (tuned only)"
        )

    def _set_system(self, text: str) -> None:
        if text:
            self.memory.system = None if text == CLEAR else text
        _say(f"시스템 문장 (system): {self.memory.system or '없음 (none)'}")

    def _show_settings(self) -> None:
        sampling, own = self.settings.sampling, self.settings
        how = "temperature=off (가장 그럴듯한 것만, greedy)"
        if sampling is not None:
            how = f"temperature={sampling.temperature:g} top_p={sampling.top_p:g} seed={sampling.seed}"
        _say(f"max_new_tokens={own.max_new_tokens} {how}")
        _say(f"템플릿 (template): {self.lm.encoder.template.name}, 문맥 (context): {self.memory.room} tokens")

    def _greet(self) -> None:
        _say(
            f"{self.lm.encoder.vocabulary.name} · 템플릿 {self.lm.encoder.template.name} · /help 도움말, Ctrl-D 끝"
        )
        if self.compare:
            _say("기반 모델의 답을 함께 보입니다 (with the base)")

    def _answer(self, question: str) -> None:
        shown = self.memory.ask(question, self.settings.max_new_tokens)
        if shown.left_out:
            _say(f"문맥이 차서 앞의 문답 {shown.left_out}개는 보이지 않습니다 (left out of the context)")
        answer = self._both(shown) if self.compare else self._stream(shown, "모델> ")
        self.memory.keep(question, answer)
        self._advance()

    def _advance(self) -> None:
        """The next answer is drawn anew: one seed for a whole talk would say the same to the same question."""
        sampling = self.settings.sampling
        if sampling is not None:
            self.settings = replace(self.settings, seed=(sampling.seed + 1) % (1 << 32))

    def _stream(self, shown: Shown, label: str) -> str:
        """Shows an answer as it is written; Ctrl-C ends it, and what there is of it counts."""
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            console.print(Text(piece), end="", soft_wrap=True)

        console.print(Text(label, style="bold green"), end="")
        try:
            written = self._write(shown, show)
        except KeyboardInterrupt:
            console.print()
            _say("멈췄습니다 (stopped)")
            return "".join(pieces)
        console.print()
        _tell_limit(written)
        return written.text

    def _both(self, shown: Shown) -> str:
        """Both answers: side by side where the terminal is wide enough, else one after the other."""
        try:
            if console.width < BESIDE:
                with self.lm.without_adapter():
                    self._stream(shown, "기반> ")
                return self._stream(shown, "튜닝> ")
            with console.status("기반 모델이 쓰는 중 (the base is writing)"), self.lm.without_adapter():
                base = self._write(shown, None)
            with console.status("튜닝 모델이 쓰는 중 (the tuned model is writing)"):
                tuned = self._write(shown, None)
        except KeyboardInterrupt:
            _say("멈췄습니다 (stopped)")
            return ""
        beside = Table(expand=True, show_edge=False)
        for label in ("기반 (base)", "튜닝 (tuned)"):
            beside.add_column(label, ratio=1, overflow="fold")
        beside.add_row(Text(_ended(base)), Text(_ended(tuned)))
        console.print(beside)
        return tuned.text

    def _write(self, shown: Shown, show: Callable[[str], None] | None) -> Written:
        prompt = self.lm.encoder.render(shown.conversation)
        own = self.settings
        return self.lm.write([prompt], own.max_new_tokens, sampling=own.sampling, show=show)[0]


def _ended(written: Written) -> str:
    return written.text if written.stopped else f"{written.text} …"


def _tell_limit(written: Written) -> None:
    if not written.stopped:
        _say("길이 한도에 닿았습니다: /settings max_new_tokens=... (did not stop by itself)")


def _say(text: str) -> None:
    console.print(Text(text, style="dim"))
