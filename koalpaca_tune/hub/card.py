"""The model card: what was published, what it was made of, whether it got better, what it took, how to load it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from koalpaca_tune import html, jsonl
from koalpaca_tune.comparison import words
from koalpaca_tune.data import licences
from koalpaca_tune.data.terms import Said as Conflict
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import base_terms, cost, facts, index, pictures, scope, subject, training
from koalpaca_tune.hub.cost import Rates
from koalpaca_tune.hub.loading import QUESTION, SLOT, loading, prompt_of
from koalpaca_tune.hub.pictures import Picture
from koalpaca_tune.hub.public import base_name, check_repo, is_hub_name, markdown, scrub
from koalpaca_tune.hub.subject import Form, Subject
from koalpaca_tune.models.architectures import ARCHITECTURES

__all__ = ["NAME", "QUESTION", "Said", "head", "loading", "text", "write"]

NAME = "README.md"
PAGE = "model_card.md.j2"

_TITLES: Mapping[Form, tuple[str, str]] = {
    "adapter": ("어댑터", "adapter"),
    "merged": ("모델", "model"),
    "full": ("모델", "model"),
}


class Said(NamedTuple):
    """What only the publisher says.

    Attributes:
        repo: user/name on the Hub, if it is known already.
        license: licence of what is published, as the Hub spells it; None: the card says that it is not known.
        data_licenses: licences of the training data; empty: as the run recorded them.
        rates: price of the machine and carbon of its electricity.
        base_license: licence of the base; None: as it is known.
    """

    repo: str | None
    license: str | None
    data_licenses: Sequence[str]
    rates: Rates = Rates()
    base_license: str | None = None


def write(
    folder: Path,
    comparison: Path | None,
    *,
    repo: str | None,
    license: str | None,
    data_licenses: Sequence[str],
    base_license: str | None = None,
    rates: Rates | None = None,
    adapter: Path | None = None,
) -> Path:
    """Writes README.md and its plots into the folder of an adapter or a model.

    Args:
        folder: the adapter of a run, a merged model, or the model of a run without an adapter.
        comparison: folder of `koalpaca compare` for it and its base; None: the card says that nothing was
            evaluated.
        repo, license, data_licenses, base_license, rates: as `Said`.
        adapter: of a merged model, the adapter that was merged.

    Returns:
        The file written.

    Raises:
        KoalpacaError: not whole, or not ours (adapter-missing, card-record, card-adapter, hub-kind), a comparison
            or an adapter of something else (card-comparison, card-other-adapter), no repository name (hub-repo),
            or a rate of what was not recorded (card-cost).
    """
    if repo is not None:
        check_repo(repo)
    about = subject.read(folder, adapter)
    found = None if comparison is None else subject.comparison(comparison, about)
    said = Said(repo, license, data_licenses, rates or Rates(), base_license)
    # the text first: a card that cannot be written leaves the plots of the older one
    text(about, found, said, [])
    drawn = pictures.write(folder, about.run, found)
    path = folder / NAME
    jsonl.replace(path, [text(about, found, said, drawn)])
    return path


def text(about: Subject, comparison: Mapping[str, Any] | None, said: Said, drawn: Sequence[Picture]) -> str:
    """The whole card.

    Args:
        about: what it is about, read already.
        comparison: comparison.json, read and checked, or None.
        said: what the publisher says.
        drawn: the plots that lie beside it.

    Raises:
        KoalpacaError: a part of the record is not what a run writes there (card-record).
    """
    try:
        return _text(about, comparison, said, drawn)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # a record from elsewhere may hold anything at any depth
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise KoalpacaError(
            "card-record",
            f"a part of it is not what a run writes there ({what}).",
            where=facts.RECORD,
            fix="Restore the file from the run's folder.",
        ) from error


def _text(about: Subject, comparison: Mapping[str, Any] | None, said: Said, drawn: Sequence[Picture]) -> str:
    record = about.record
    base = record["base"]["path"]
    architecture = ARCHITECTURES.get(record["base"]["model_type"])
    prompt = prompt_of(record)
    found = facts.sources(record) or []
    ground = base_terms.of(base, said.base_license)
    return html.render(
        PAGE,
        head=head(about, said, comparison),
        md=markdown,
        form=about.form,
        title=_TITLES[about.form],
        name=said.repo or record["name"],
        base=base_name(base),
        base_word=shlex.quote(base_name(base)),
        on_hub=is_hub_name(base),
        base_facts=[*facts.base(record), facts.licence("라이선스 (licence)", "Licence", ground.licence)],
        base_obligations=ground.obligations,
        license=said.license or facts.UNKNOWN,
        license_en=said.license or facts.NOT_KNOWN,
        data_facts=facts.data(record, said.data_licenses),
        sources=[facts.source(entry) for entry in found],
        conflicts=conflicts(record, said.license, said.base_license, about.form),
        template=record["template"]["name"],
        prompt=None if prompt is None else prompt.text.replace(SLOT, QUESTION),
        settings=[*training.settings(record, about.config), *training.merging(about.merge)],
        recipe=_recipe(record),
        outcome=training.outcome(record),
        costs=cost.facts(record, said.rates),
        pictures={Path(picture.path).stem: picture for picture in drawn},
        comparison=comparison,
        scope=scope.said(comparison) if comparison else [],
        another_model=training.another_model(about.merge),
        no_interval=words.NO_INTERVAL,
        results=[facts.result(row) for row in comparison["rows"]] if comparison else [],
        code=loading(record, said.repo, about.form),
        repo=said.repo,
        merged_only=bool(architecture and architecture.merged_only),
        quantised=bool(record["proof"]["linears_4bit"] or record["proof"].get("linears_8bit")),
    )


def conflicts(
    record: Mapping[str, Any], license: str | None, base_license: str | None, form: Form = "adapter"
) -> list[Conflict]:
    """Where a declared licence does not fit those of the base and of the data."""
    base = record["base"]["path"]
    ground = base_terms.entry(base_name(base), base_terms.of(base, base_license))
    found = licences.conflicts(license, [ground, *(facts.sources(record) or [])])
    if form == "adapter":
        return found
    return [
        Conflict(ko=one.ko.replace("어댑터의", "모델의"), en=one.en.replace("The adapter", "The model"))
        for one in found
    ]


def _recipe(record: Mapping[str, Any]) -> str:
    """The recipe as YAML, without places; a fence cannot be closed from inside."""
    import yaml

    written: str = yaml.safe_dump(scrub(record["recipe"]), allow_unicode=True, sort_keys=False)
    return written.strip().replace("```", "` ` `")


def head(about: Subject, said: Said, comparison: Mapping[str, Any] | None) -> str:
    """The YAML that the Hub reads, without its fences. What is not known is left out."""
    from huggingface_hub import ModelCardData

    record = about.record
    base = record["base"]["path"]
    known = is_hub_name(base)
    adapted = about.form == "adapter"
    method = "full" if about.config is None else "qlora" if record["proof"]["linears_4bit"] else "lora"
    card = ModelCardData(
        language="ko",
        license=None if said.license is None else " ".join(said.license.lower().split()),
        library_name="peft" if adapted else "transformers",
        pipeline_tag="text-generation",
        base_model=base if known else None,
        base_model_relation=("adapter" if adapted else "finetune") if known else None,
        tags=["koalpaca-tune", "korean", method],
        datasets=_datasets(record),
        model_name=said.repo or record["name"] if comparison else None,
        eval_results=index.results(comparison) if comparison else None,
        co2_eq_emissions=_emissions(record, said.rates),
    )
    written: str = card.to_yaml()
    return written.strip()


def _datasets(record: Mapping[str, Any]) -> list[str] | None:
    """Names of the sources that lie on the Hub."""
    prefix = "https://huggingface.co/datasets/"
    urls = [str(entry.get("url") or "") for entry in facts.sources(record) or []]
    names = [url.removeprefix("hf:").removeprefix(prefix) for url in urls if url.startswith(("hf:", prefix))]
    return list(dict.fromkeys(name for name in names if name.count("/") == 1)) or None


def _emissions(record: Mapping[str, Any], rates: Rates) -> dict[str, Any] | None:
    grams = cost.emissions(record, rates)
    if grams is None:
        return None
    used = cost.energy(record)
    assert used is not None
    source = "the card's own counter" if used.how == cost.COUNTED else "power limit times time"
    device = (record.get("machine") or {}).get("device")
    return {
        "emissions": round(grams, 1),
        "source": f"koalpaca-tune: {source}, {rates.grams_per_kwh:g} g/kWh",
        "training_type": "fine-tuning",
        **({"hardware_used": " ".join(str(device).split())} if device else {}),
    }
