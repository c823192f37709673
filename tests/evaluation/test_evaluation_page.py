"""The report on a phone, in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from folders import answer, choice, picked, task, write

from koalpaca_tune.comparison import report
from koalpaca_tune.comparison.compare import compare

CHROMIUM = shutil.which("chromium")
PROBE = """<iframe id=f src="PAGE" style="width:360px;height:800px;border:0"></iframe><pre id=o></pre><script>
f.onload = () => {
  const page = f.contentDocument
  page.querySelectorAll('details').forEach(one => { one.open = true })
  const root = page.documentElement
  o.textContent = 'client=' + root.clientWidth + ' scroll=' + root.scrollWidth
}
</script>"""


def page(tmp_path: Path) -> Path:
    """A report of every part that there is, with long words and long texts."""
    for side, name in enumerate(("a", "b")):
        random = np.random.default_rng(side)
        long = "가나다라마바사아자차카타파하" * 30 + " https://example.com/" + "a" * 200
        choices = [
            choice(f"c{k:02d}", k % 4, random.normal(size=4).tolist(), category=f"범주 {k % 3}", prompt=long)
            for k in range(40)
        ]
        labels = [picked(f"p{k:02d}", k % 2, 1, tokens=[1, 2]) for k in range(40)]
        answers = [
            answer(f"w{k:02d}", {"chrf": float(random.random())}, text=long, stopped=k > 9) for k in range(40)
        ]
        tasks = [
            task("아주긴이름의과제" * 4, "choice", choices, metrics={"accuracy": 0.2, "macro_f1": 0.2}),
            task("감정", "choice", labels, contaminated=3),
            task("쓰기", "answer", answers, metrics={"chrf": 0.77}),
        ]
        write(tmp_path / name, *tasks, adapter=name)
    return report.write(compare(tmp_path / "a", tmp_path / "b"), tmp_path / "out")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
def test_no_sideways_scrolling_on_a_phone(tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.replace("PAGE", page(tmp_path).as_uri()), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += [
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'chrome'}",
    ]
    done = subprocess.run(
        [str(CHROMIUM), *flags, "--dump-dom", probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"client=(\d+) scroll=(\d+)", done.stdout)
    assert found, done.stdout[-500:]
    client, scroll = map(int, found.groups())
    assert 300 < client <= 360
    assert scroll == client


def test_the_page_is_one_file_with_its_warnings_first(tmp_path: Path) -> None:
    text = page(tmp_path).read_text(encoding="utf-8")
    assert '<meta name="viewport" content="width=device-width' in text
    assert not re.search(r"""(src|href)=["']""", text.replace('xlink:href="#', "").replace('href="#', ""))
    assert "<script" not in text
    places = [
        text.index(part)
        for part in ("먼저 읽을 것", 'class="headline"', "답이 바뀐 문항", "범주별", "어떻게 쟀는가")
    ]
    assert places == sorted(places)
