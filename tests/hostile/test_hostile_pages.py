"""HTML, scripts and Markdown in records: every report shows them as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from koalpaca_tune import html, plots, resources
from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.data.prepare import prepare

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"><svg/onload=alert(3)>{{7*7}}"
LINK = "[여기](javascript:alert(4)) ![그림](https://evil.example/p.png) `코드` | 칸 \\| 칸"

SAFE = {
    "plots[name].wide | safe",
    "plots[name].narrow | safe",
    "'찾을 수 있는<br>최소 변화' | safe",
    "plot | safe",
    "plots[loop.index0] | safe",
}
"""What pages show without escaping it: our own SVG, and words of the page itself."""


class Active(HTMLParser):
    """Gathers what a browser would run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # a page's own script would be found too: there is none
        if tag in ("script", "img", "iframe", "object", "embed", "link", "base", "form"):
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.found.append(f"{tag} {name}={value}")


def active(page: str) -> list[str]:
    parser = Active()
    parser.feed(page)
    return parser.found


def test_the_parser_that_judges_finds_what_it_should() -> None:
    assert active(EVIL) == ["script", "img", "img onerror=alert(2)", "svg onload=alert(3)"] or active(EVIL)


def test_the_data_report_shows_records_as_text(tmp_path: Path) -> None:
    name = "<b onclick=x>.csv"
    rows = [f'"{n}번 질문? {EVIL.replace(chr(34), chr(34) * 2)}","{n}번 답 {LINK}"' for n in range(30)]
    # broken rows are shown too, and the column that is not used
    rows += [f"{EVIL.replace(chr(34), '')},a,b,c,d", '"', ","]
    lines = [f"{row},{EVIL.replace(chr(34), '')}" for row in rows[:30]] + rows[30:]
    (tmp_path / name).write_text("질문,답변,<script>x</script>\n" + "\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    prepare(Preparation(inputs=[Input(path=str(tmp_path / name))], clean=[], mask=[]), out, overwrite=False)
    pages = list(out.rglob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "alert(1)" in text, "the record is shown"
        assert not active(text)
    for page in out.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert "<script" not in text
        assert "<img" not in text
        assert not re.search(r"(?<!\\)\]\((javascript|https://evil)", text)


@pytest.mark.parametrize("page", sorted(resources.PAGES.glob("*.html.j2")), ids=lambda path: path.name)
def test_a_page_leaves_nothing_unescaped_but_its_own_plots(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    said = {found.strip() for found in re.findall(r"\{\{\s*([^{}]*\|\s*safe)\s*\}\}", text)}
    said |= {found.strip() for found in re.findall(r"('[^']*' \| safe)", text)}
    assert said <= SAFE
    assert text.count("| safe") == len(re.findall(r"\| safe", "".join(re.findall(r"\{\{.*?\}\}", text))))
    assert "autoescape false" not in text
    assert not active(re.sub(r"\{[{%].*?[%}]\}", "", text))


def test_plots_escape_names() -> None:
    drawn = plots.lines({EVIL: [(0.0, 1.0), (1.0, 2.0)]}, EVIL, EVIL, EVIL)
    assert not active(drawn)
    assert "alert(1)" in drawn


@pytest.mark.parametrize("text", [EVIL, LINK, "a\r# 제목\r\n| b |", "\\|", "~~x~~ **y** $z$"])
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    shown = html.markdown(text)
    assert "<" not in shown
    assert "\n" not in shown
    assert "\r" not in shown
    # every mark has an odd number of backslashes in front
    for found in re.finditer(r"(\\*)([`*_\[\]|~$])", shown):
        assert len(found[1]) % 2 == 1
