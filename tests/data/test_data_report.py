from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import koalpaca_tune
from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.config.quality import Quality
from koalpaca_tune.data import words
from koalpaca_tune.data.prepare import prepare
from koalpaca_tune.data.report import Report

Write = Callable[..., Path]


def run(files: Sequence[Path], out: Path, **chosen: Any) -> Report:
    return prepare(Preparation(inputs=[Input(path=str(path)) for path in files], **chosen), out)


NASTY = '<script>alert("x")</script>'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]


def test_everything_from_a_file_is_escaped(write: Write, tmp_path: Path) -> None:
    column = NASTY.replace('"', "'")
    lines = f'질문,답변,{column}\n"{NASTY.replace(chr(34), chr(34) * 2)}",{column},x\n{column},,x\n하나,둘,x\n'
    run([write("a<b>.csv", lines)], tmp_path / "out", clean=[], quality=Quality(max_echo=None))
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.names
    assert page.count("&lt;script&gt;") >= 3
    assert "a&lt;b&gt;.csv" in page
    assert "<script" not in (tmp_path / "out" / "report.md").read_text("utf-8")


def test_the_page_stands_alone_and_has_its_plots(write: Write, tmp_path: Path) -> None:
    files = [write(f"{name}.csv", "".join(["q,a\n", *(f"{name}{n},{n}\n" for n in range(30))])) for name in "ab"]
    made = run(files, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.names.count("svg") == 5
    assert all(link.startswith("#") for link in tags.links)
    assert "@import" not in page
    assert f"{made.train:,}" in page
    for word in ("출처별", "질문 길이", "남은 기록의 예"):
        assert word in page


def test_markdown_tables_are_whole(write: Write, tmp_path: Path) -> None:
    run([write("a|b.csv", "q,a,c|d\n하나,1,x\n둘,2,x\n둘|둘,,x\n")], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    widths: list[int] = []
    for line in text.splitlines():
        if line.startswith("|"):
            widths.append(len(re.findall(r"(?<!\\)\|", line)))
        else:
            assert len(set(widths)) <= 1, text
            widths = []


def test_every_row_code_has_a_korean_reason() -> None:
    folder = Path(koalpaca_tune.__file__).parent
    sources = [*sorted((folder / "data").rglob("*.py")), folder / "records.py"]
    pattern = r'"((?:row|quality|mix|duplicate)-[a-z-]+|contaminated)"'
    codes = {code for path in sources if path.name != "words.py" for code in re.findall(pattern, path.read_text())}
    assert codes <= set(words.REASONS)
    assert {code for code in words.REASONS if not code.startswith("quality-")} <= codes
