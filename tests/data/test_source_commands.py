"""`koalpaca data sources` and `koalpaca data source NAME`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from koalpaca_tune.cli.main import cli
from koalpaca_tune.cli.show import console
from koalpaca_tune.data import sources


def shown(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(console, "width", 200)
    result = CliRunner().invoke(cli, ["data", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_flags_what_is_not_commercial(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, "sources").splitlines()
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert set(sources.names()) <= set(rows)
    assert "⚠ 안 됨" in rows["koalpaca-v1.0"]
    assert "⚠" not in rows["nsmc"]
    assert "고정되지 않음" in rows["ko-wikidata-qa"]


@pytest.mark.parametrize("name", sources.names())
def test_each_set_can_be_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text = shown(monkeypatch, "source", name)
    source = sources.load(name)
    assert source.licence in text
    assert source.title in text
    assert (source.revision or "고정되지 않음") in text
    for said in source.terms.obligations:
        assert said.ko[:20] in text
