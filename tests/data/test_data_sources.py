from __future__ import annotations

import pytest

from koalpaca_tune import resources
from koalpaca_tune.data import sources
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.errors import KoalpacaError


@pytest.mark.parametrize("name", sources.names())
def test_every_source_loads(name: str) -> None:
    source = sources.load(name)
    assert source.name == name
    assert source.licence
    assert source.obligations
    for file in source.files:
        shapes.guess(file.columns, name)


def test_the_sets_we_ship_or_show_are_described() -> None:
    assert {"samples", "chatbot_data", "koalpaca-v1.1a"} <= set(sources.names())


def test_the_samples_are_as_described() -> None:
    files = {file.path: file for file in sources.load("samples").files}
    shipped = [path for path in (resources.DATA / "samples").iterdir() if path.suffix in readers.SUFFIXES]
    assert set(files) == {path.name for path in shipped}
    for path in shipped:
        opened = readers.read(path)
        assert (opened.format, list(opened.columns)) == (files[path.name].format, files[path.name].columns)


def test_an_unknown_source_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(KoalpacaError, match="Did you mean 'chatbot_data'") as caught:
        sources.load("chatbot-data")
    assert caught.value.problems[0].code == "source-missing"
