"""What a YAML file is: a suite, or a task of which kind."""

from __future__ import annotations

from koalpaca_tune.config.document import Document
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.suites.schema import KINDS, MODELS, TaskFile


def of_task(document: Document) -> type[TaskFile]:
    """The model of a task file.

    Raises:
        KoalpacaError: a suite (task-missing), no kind (config-missing-key), or an unknown one (config-value).
    """
    value = document.value if isinstance(document.value, dict) else None
    if value is None:
        return TaskFile
    where = document.where(("kind",))
    if "kind" in value:
        kind = str(value["kind"])
        if kind not in MODELS:
            what = f"{kind!r} is no kind of task."
            raise KoalpacaError("config-value", what, where=where, fix=did_you_mean(kind, KINDS))
        return MODELS[kind]
    if "tasks" in value:
        fix = "Name it with --suite."
        raise KoalpacaError("task-missing", "it is a suite, not a task.", where=document.name, fix=fix)
    # the other keys are not looked at: it is the kind that allows them
    fix = f"Add one of {', '.join(KINDS)}."
    raise KoalpacaError("config-missing-key", "'kind' is missing.", where=where, fix=fix)


def suite(document: Document) -> None:
    """Refuses a task file in place of a suite.

    Raises:
        KoalpacaError: suite-missing.
    """
    if isinstance(document.value, dict) and "kind" in document.value and "tasks" not in document.value:
        fix = "Name it with --task."
        raise KoalpacaError("suite-missing", "it is a task, not a suite.", where=document.name, fix=fix)
