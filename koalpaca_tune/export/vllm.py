"""A folder from which vLLM serves a tuned model: adapters or merged weights, chat template, stops, the command.

Llama adapters are served as they are, several over one base, chosen by the request's `model`. vLLM has no LoRA for
GPT-NeoX, so those are merged first, one server for each. In both cases vLLM multiplies by the base's own weights in
16 bits, which are not the 4-bit ones that the adapter learned beside.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.export.model import Model, open_model, plain_name
from koalpaca_tune.inference.merging import merge as merging
from koalpaca_tune.inference.merging import record as records
from koalpaca_tune.inference.merging.report import MergeReport, Onto
from koalpaca_tune.models import adapter_files, sources

CHAT_TEMPLATE = "chat_template.jinja"
GENERATION = "generation_config.json"
COMMAND = "serve.sh"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for --max-lora-rank."""


@dataclass(frozen=True)
class Served:
    """What was laid out.

    Attributes:
        folder: holds it all.
        commands: a shell line for each server.
        why: why this way, in a sentence (Korean, English).
        merged: what each merge changed; empty where adapters stay adapters.
    """

    folder: Path
    commands: tuple[str, ...]
    why: str
    merged: tuple[MergeReport, ...] = ()


def whole(model: Model, out: Path) -> Served:
    """A model that needs no adapter: merged, fully tuned, or a base.

    Raises:
        KoalpacaError: `out` is not empty (export-out).
    """
    _check_out(out)
    _lay(model, out)
    command = _command(model, out, _base_path(Base(path=model.path)), [])
    return _finish(out, [command], "어댑터가 없는 모델이라 그대로 서빙합니다 (no adapter: served as it is).")


def adapters(
    base: Base,
    folders: Sequence[Path],
    out: Path,
    *,
    onto: Onto = "base",
    say: Callable[[str], None] = lambda what: None,
) -> Served:
    """Adapters of one base: side by side where vLLM can, each merged where it cannot.

    Args:
        base: that all of them were trained on.
        folders: their folders; the recipe's name is what a request asks for.
        out: a new or empty folder.
        onto: for merging, as in `merge`.
        say: told each stage.

    Raises:
        KoalpacaError: `out` is not empty (export-out), another base (adapter-wrong-base), two adapters of one name
            (export-names) or with different templates (export-template-differs), a rank that vLLM does not take
            (export-rank), or anything in merging.
    """
    _check_out(out)
    known = [records.read(folder) for folder in folders]
    for record, folder in zip(known, folders, strict=True):
        _, architecture = merging.check_base(base, record, folder)
    names = [plain_name(record["name"]) for record in known]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise KoalpacaError(
            "export-names",
            f"two adapters are called '{twice}': a request could not choose.",
            where=str(folders[names.index(twice)]),
            fix="Export them one by one, or give the recipe another name.",
        )
    if architecture.merged_only:
        return _merged(base, folders, names, out, onto, say)
    templates = [record["template"]["name"] for record in known]
    other = next((n for n, name in enumerate(templates) if name != templates[0]), None)
    if other is not None:
        raise KoalpacaError(
            "export-template-differs",
            f"it was trained with template '{templates[other]}', {folders[0]} with '{templates[0]}'; "
            "a server has one chat template.",
            where=str(folders[other]),
            fix="Export them one by one.",
        )
    ranks = [adapter_files.read(folder).r for folder in folders]
    model = open_model(base, templates[0])
    _lay(model, out)
    modules = []
    for name, folder in zip(names, folders, strict=True):
        (out / name).mkdir()
        for file in (adapter_files.CONFIG, adapter_files.WEIGHTS):
            shutil.copyfile(folder / file, out / name / file)
        modules.append(f"{name}={(out / name).absolute()}")
    options = ["--enable-lora", "--max-lora-rank", str(_rank(max(ranks), folders)), "--max-loras", str(len(names))]
    command = _command(model, out, _base_path(base), [*options, "--lora-modules", *modules], base.revision)
    return _finish(
        out,
        [command],
        f"vLLM은 Llama의 어댑터를 합치지 않고 씁니다: 요청의 model을 {', '.join(names)} 중에서 고르세요 "
        "(adapters stay adapters; a request's `model` chooses one).",
    )


def _merged(
    base: Base, folders: Sequence[Path], names: Sequence[str], out: Path, onto: Onto, say: Callable[[str], None]
) -> Served:
    reports, commands = [], []
    for n, (name, folder) in enumerate(zip(names, folders, strict=True)):
        reports.append(merging.merge(base, folder, out / name, onto=onto, say=say))
        template = records.read(folder)["template"]["name"]
        model = open_model(Base(path=str(out / name)), template)
        port = ["--port", str(8000 + n)] if n else []
        commands.append(_command(model, out / name, out / name, port, name=name))
    return _finish(
        out,
        commands,
        "vLLM에는 GPT-NeoX의 LoRA가 없어 어댑터를 합쳤습니다 (vLLM has no LoRA for GPT-NeoX: merged).",
        tuple(reports),
    )


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise KoalpacaError(
            "export-out", "it exists and is not an empty folder.", where=str(out), fix="Give a new folder."
        )


def _base_path(base: Base) -> Path | str:
    located = sources.locate(base.path)
    return Path(located).absolute() if Path(located).is_dir() else located


def _rank(rank: int, folders: Sequence[Path]) -> int:
    found = next((one for one in RANKS if one >= rank), None)
    if found is None:
        raise KoalpacaError(
            "export-rank",
            f"rank {rank} is more than vLLM takes ({RANKS[-1]}).",
            where=str(folders[0]),
            fix="Merge it first (koalpaca merge), then export the merged model.",
        )
    return found


def _lay(model: Model, out: Path) -> None:
    """Chat template and stop ids, for a server that reads the base's folder otherwise."""
    out.mkdir(parents=True, exist_ok=True)
    jsonl.replace(out / CHAT_TEMPLATE, [model.chat_template])
    vocabulary = model.vocabulary
    settings: dict[str, Any] = {"eos_token_id": vocabulary.stop_ids(model.template)}
    if vocabulary.bos is not None:
        settings["bos_token_id"] = vocabulary.id(vocabulary.bos)
    jsonl.write_json(out / GENERATION, settings)


def _command(
    model: Model,
    beside: Path,
    path: Path | str,
    options: Sequence[str],
    revision: str | None = None,
    name: str | None = None,
) -> str:
    """A line of shell; `beside` holds chat template and stops."""
    where = str(path.absolute()) if isinstance(path, Path) else path
    words = ["vllm", "serve", where, "--host", "127.0.0.1"]
    if revision is not None:
        words += ["--revision", revision, "--tokenizer-revision", revision]
    words += [
        "--served-model-name",
        name or model.name,
        "--dtype",
        "float32" if model.float32 else "bfloat16",
        "--max-model-len",
        str(model.config.max_position_embeddings),
        "--chat-template",
        str((beside / CHAT_TEMPLATE).absolute()),
        "--generation-config",
        str(beside.absolute()),
        *options,
    ]
    return shlex.join(words)


def _finish(out: Path, commands: Sequence[str], why: str, merged: tuple[MergeReport, ...] = ()) -> Served:
    lines = ["#!/bin/sh", f"# {why}", "set -eu"]
    # the last one stays in front; the others run beside it
    lines += [f"{command} &" for command in commands[:-1]] + [f"exec {commands[-1]}"]
    jsonl.replace(out / COMMAND, ["\n".join(lines), "\n"])
    (out / COMMAND).chmod(0o755)
    return Served(out, tuple(commands), why, merged)
