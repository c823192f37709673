"""The wheel works where there is no checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built wheel unpacked, and nothing else of this project."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    # a copy of what git would hold: building in the checkout would leave build/ there
    source = folder / "source"
    source.mkdir()
    for name in ("koalpaca_tune", "data", "eval", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        subprocess.run(["cp", "-r", str(TOP / name), str(source / name)], check=True)
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def koalpaca(site: Path, cwd: Path, *words: str) -> str:
    """Runs the installed command far from the checkout."""
    code = "import sys, koalpaca_tune; print(koalpaca_tune.__file__, file=sys.stderr)\n"
    code += "from koalpaca_tune.cli.main import main; main()"
    # -P and an own PYTHONPATH: the editable install of the checkout must not be what runs
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stderr
    return done.stdout


def test_the_wheel_prepares_the_samples_and_judges_the_embedded_base(site: Path, tmp_path: Path) -> None:
    assert "polyglot-ko-12.8b" in koalpaca(site, tmp_path, "recipe", "list")
    koalpaca(site, tmp_path, "data", "prepare", "--samples", "--out", "prepared")
    assert (tmp_path / "prepared" / "train.jsonl").is_file()
    koalpaca(site, tmp_path, "eval", "embedded", "--suite", "ko-smoke", "--out", "judged")
    assert (tmp_path / "judged" / "base" / "result.json").is_file()


def test_the_wheel_is_small_enough_to_ship(site: Path) -> None:
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file() and "__pycache__" not in str(path))
    assert size < 20_000_000
