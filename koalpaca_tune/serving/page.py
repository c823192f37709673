"""A page: ask once, see the base's and the tuned model's answers side by side, and say which is better."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference import answer
from koalpaca_tune.inference.decoding import Written
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.serving import curve, votes
from koalpaca_tune.serving.doors import Doors
from koalpaca_tune.serving.refusal import Refusal
from koalpaca_tune.serving.settings import Settings
from koalpaca_tune.serving.votes import Choice, Shown, Side

TITLE = "KoAlpaca Tune"
NAMES: dict[Side, str] = {"base": "기반 모델 (base)", "tuned": "튜닝 모델 (tuned)"}
HIDDEN = ("답 가 (A)", "답 나 (B)")
CUT = " …"
LOOK_S = 2.0
"""Seconds between two looks at a run."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)
"""The browser itself fetches nothing from anywhere else, whatever a version of Gradio may ask for."""
FONTS = ("Pretendard", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", "Noto Sans CJK KR", "sans-serif")
CSS = """
.answer textarea { font-size: 1.05rem; line-height: 1.7; word-break: keep-all; }
footer { display: none !important; }
"""


@dataclass(frozen=True)
class Shop:
    """What the page is about.

    Attributes:
        lm: base and adapter.
        models: base, adapter and template, as votes name them.
        votes: where votes go.
        run: whose loss is shown; None: no such tab.
        max_new_tokens: that the page begins with.
    """

    lm: TorchLanguageModel
    models: dict[str, str]
    votes: Path
    run: Path | None
    max_new_tokens: int = 256

    def ask(
        self,
        question: str | None,
        system: str | None,
        max_new_tokens: float,
        temperature: float,
        top_p: float,
        seed: float,
        blind: bool,
    ) -> Shown:
        """Both answers.

        Raises:
            KoalpacaError: an empty question, a setting that cannot be, or a question that is too long.
        """
        drawn = {"temperature": temperature, "top_p": top_p, "seed": int(seed)} if temperature else {}
        settings = Settings(int(max_new_tokens), **drawn)  # type: ignore[arg-type]  # of the right kinds, as named
        conversation = answer.question(question or "", system=system)
        both = answer.side_by_side(self.lm, [conversation], settings.max_new_tokens, sampling=settings.sampling)[0]
        order: tuple[Side, Side] = ("base", "tuned")
        if blind and secrets.randbits(1):
            order = ("tuned", "base")
        return Shown(
            question=conversation.turns[-1].content,
            system=(system or "").strip(),
            answers=_texts(both),
            order=order,
            blind=blind,
            settings={"max_new_tokens": settings.max_new_tokens, "temperature": temperature or None, **drawn},
            models=self.models,
        )


def _texts(both: answer.SideBySide) -> dict[Side, str]:
    def text(written: Written) -> str:
        return written.text if written.stopped else written.text + CUT

    return {"base": text(both.base), "tuned": text(both.tuned)}


def page(shop: Shop) -> gr.Blocks:
    """The page's parts and what they do."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {TITLE}\n{_about(shop)}")
        with gr.Tab("묻기 (ask)"):
            _asking(shop)
        if shop.run is not None:
            with gr.Tab("학습 손실 (loss)"):
                _watching(shop.run)
    return blocks


def _about(shop: Shop) -> str:
    parts = (("기반", "base"), ("어댑터", "adapter"), ("템플릿", "template"))
    return " · ".join(f"{label} `{shop.models[key]}`" for label, key in parts)


def _asking(shop: Shop) -> None:
    shown = gr.State(None)
    question = gr.Textbox(
        "", label="질문 (question)", lines=3, placeholder="무엇이든 물어보세요", elem_id="question"
    )
    with gr.Accordion("설정 (settings)", open=False):
        system = gr.Textbox("", label="시스템 문장 (system text)", lines=1)
        with gr.Row():
            length = gr.Slider(1, 2048, shop.max_new_tokens, step=1, label="가장 긴 답, 토큰 (max new tokens)")
            temperature = gr.Slider(0, 2, 0, step=0.1, label="온도; 0은 가장 그럴듯한 것만 (temperature)")
        with gr.Row():
            top_p = gr.Slider(0.05, 1, 0.9, step=0.05, label="top-p; 온도가 있을 때", interactive=False)
            seed = gr.Number(
                42, precision=0, minimum=0, maximum=2**32 - 1, label="시드; 온도가 있을 때", interactive=False
            )
        blind = gr.Checkbox(False, label="이름을 가리고 보기 (blind): 투표한 뒤에 알려 줍니다", elem_id="blind")
    ask = gr.Button("묻기 (ask)", variant="primary", elem_id="ask")
    with gr.Row():
        left, right = (
            gr.Textbox(label=label, lines=8, interactive=False, elem_classes="answer", elem_id=place)
            for label, place in zip(NAMES.values(), ("left", "right"), strict=True)
        )
    with gr.Row():
        better = [
            gr.Button(label, interactive=False, elem_id=f"vote-{place}")
            for label, place in (
                ("왼쪽이 나음 (left)", "left"),
                ("비슷함 (same)", "same"),
                ("오른쪽이 나음 (right)", "right"),
            )
        ]
    said = gr.Markdown("", elem_id="said")

    def drawn(value: float) -> list[Any]:
        return [gr.update(interactive=value > 0)] * 2

    temperature.change(drawn, temperature, [top_p, seed], show_progress="hidden", api_visibility="private")

    def answered(*asked: Any) -> list[Any]:
        found = _or_told(lambda: shop.ask(*asked))
        labels = HIDDEN if found.blind else tuple(NAMES[side] for side in found.order)
        texts = [
            gr.update(value=found.answers[side], label=label)
            for side, label in zip(found.order, labels, strict=True)
        ]
        return [found, *texts, *_buttons(on=True), ""]

    # one at a time: both answers are written with the same model in memory
    ask.click(
        answered,
        [question, system, length, temperature, top_p, seed, blind],
        [shown, left, right, *better, said],
        concurrency_limit=1,
        concurrency_id="model",
        api_visibility="private",
    )

    def voted(place: int) -> Callable[[Shown], list[Any]]:
        def vote(found: Shown) -> list[Any]:
            choice: Choice = "same" if place == 1 else found.order[place // 2]
            _or_told(lambda: votes.save(shop.votes, found, choice))
            names = [gr.update(label=NAMES[side]) for side in found.order]
            return [*names, *_buttons(on=False), f"저장했습니다 (saved): {shop.votes}"]

        return vote

    for place, button in enumerate(better):
        outputs = [left, right, *better, said]
        button.click(voted(place), shown, outputs, show_progress="hidden", api_visibility="private")


def _buttons(*, on: bool) -> Sequence[Any]:
    return [gr.update(interactive=on) for _ in range(3)]


def _watching(run: Path) -> None:
    gr.Markdown(f"`{run}`")
    line, picture = gr.Markdown(curve.told(run), elem_id="step"), gr.HTML(_picture(run), elem_id="loss")

    def look() -> tuple[str, str]:
        return curve.told(run), _picture(run)

    # matplotlib's settings belong to the process: one drawing at a time
    gr.Timer(LOOK_S).tick(
        look,
        None,
        [line, picture],
        show_progress="hidden",
        concurrency_limit=1,
        concurrency_id="drawing",
        api_visibility="private",
    )


def _picture(run: Path) -> str:
    return curve.svg(run) or f"<p>{escape(curve.NOTHING_YET)}</p>"


def _or_told(work: Callable[[], Any]) -> Any:
    """A person's mistake, and a full disk, as a message on the page."""
    try:
        return work()
    except KoalpacaError as error:
        raise gr.Error("<br>".join(escape(str(one)) for one in error.problems), print_exception=False) from error
    except OSError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from error


def web_app(shop: Shop, doors: Doors) -> FastAPI:
    """The page as an application, closed to other names and to assets from elsewhere."""
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @made.middleware("http")
    async def closed(request: Request, further: Callable[[Request], Any]) -> Response:
        try:
            doors.check_name(request.headers.get("host", ""))
        except Refusal as refusal:
            return JSONResponse(refusal.body(), refusal.status)
        response: Response = await further(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    theme = gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "D2Coding", "monospace"))
    whole: FastAPI = gr.mount_gradio_app(
        made, page(shop), path="", theme=theme, css=CSS, footer_links=[], ssr_mode=False, enable_monitoring=False
    )
    return whole
