"""JSON Lines: what is read back, and what is refused."""

from pathlib import Path

import pytest

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError


def test_a_replacement_character_that_was_written_is_read_back(tmp_path: Path) -> None:
    """A model that stops inside a syllable writes U+FFFD; that is a character, not a damaged file."""
    rows = [{"text": "안녕하\ufffd"}, {"text": "다음 줄"}]
    assert jsonl.write(tmp_path / "a.jsonl", rows) == 2
    assert [row for _, row in jsonl.read(tmp_path / "a.jsonl")] == rows


@pytest.mark.parametrize("damage", [b"\xff", "가".encode()[:2], "안녕".encode("cp949")])
def test_bytes_that_are_not_utf8_are_refused_at_their_line(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + damage + b'"}\n')
    with pytest.raises(KoalpacaError) as caught:
        list(jsonl.read(path))
    assert str(caught.value).startswith(f"{path}:2: the line is not UTF-8.")
