"""Results of evaluations that someone else may have written, or changed."""

from __future__ import annotations

from pathlib import Path

from koalpaca_tune.errors import KoalpacaError


class AsWritten:
    """A `with` block over what result files say: a value of another shape than `koalpaca eval` writes is one error.

    The files hold values at many depths, and each place that reads one knows what it should be; to check them all
    beforehand would be a second reader.
    """

    def __init__(self, *folders: Path) -> None:
        self._where = ", ".join(map(str, folders))

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AttributeError | LookupError | TypeError | ValueError | ArithmeticError):
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise KoalpacaError(
                "eval-shape",
                f"a part of the results is not what an evaluation writes there ({said}).",
                where=self._where,
                fix="Run `koalpaca eval` again into a new --out.",
            ) from error
