"""Keys, and the addresses that need one."""

from __future__ import annotations

from pathlib import Path

import pytest

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.serving.doors import doors
from koalpaca_tune.serving.listening import bound
from koalpaca_tune.serving.refusal import Refusal


def code(error: pytest.ExceptionInfo[KoalpacaError]) -> str:
    return error.value.problems[0].code


def test_others_need_a_key(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.168.0.3", "::", "example.org"):
        with pytest.raises(KoalpacaError) as error:
            doors(host, key_env=None, key_file=None)
        assert code(error) == "serve-open"
    for host in ("127.0.0.1", "localhost", "::1", "127.3.3.3"):
        assert doors(host, key_env=None, key_file=None).digests == ()


def test_keys_of_a_file_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first-key-1\n\n  second-key-2\n")
    own = doors("0.0.0.0", key_env=None, key_file=file)
    own.check_key("Bearer second-key-2")
    for given in ("", "Bearer ", "Bearer first-key", "Basic first-key-1", "Bearer 첫"):
        with pytest.raises(Refusal) as refusal:
            own.check_key(given)
        assert refusal.value.status == 401


@pytest.mark.parametrize("content", ["", "\n \n", "short", "has a space in it"])
def test_a_file_without_a_key(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(KoalpacaError) as error:
        doors("127.0.0.1", key_env=None, key_file=file)
    assert code(error) == "serve-key"
    assert not content.strip() or content not in str(error.value), "a key is not repeated"


def test_a_local_server_answers_to_local_names_only() -> None:
    own = doors("127.0.0.1", key_env=None, key_file=None)
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "[::1]", "LOCALHOST"):
        own.check_name(host)
    with pytest.raises(Refusal) as refusal:
        own.check_name("evil.example")
    assert refusal.value.status == 421


def test_a_port_that_is_taken_is_told_before_anything_is_read() -> None:
    taken = bound("127.0.0.1", 0)
    taken.listen()
    with pytest.raises(KoalpacaError) as error:
        bound("127.0.0.1", taken.getsockname()[1])
    assert code(error) == "serve-address"
    taken.close()
