"""Preflight of the data as the model will see it: what is kept, what is learned, where it begins and ends."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from statistics import median

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.runs.finding import Finding, State
from koalpaca_tune.runs.train import Examples
from koalpaca_tune.tokens.limit import Counts

SAMPLED = 20_000
"""Examples that are looked at token by token: a second at most, however large the set."""
DECODED = 500
"""Examples whose text is looked at."""
MANY_LOST = 0.1
"""Share of examples left out that is worth a word."""

_LETTER = re.compile("[\u1100-\u11ff]")


def check(recipe: Recipe, examples: Examples) -> list[Finding]:
    """All of it. Reads what is in memory already."""
    return [
        _kept("학습 데이터 (train)", examples.train_counts),
        *([_kept("검증 데이터 (valid)", examples.valid_counts)] if examples.valid_counts else []),
        _template(recipe, examples),
        _learned(examples.train, examples.train_counts),
        *_ends(recipe, examples),
        _composed(examples),
    ]


def _kept(name: str, counts: Counts) -> Finding:
    seen = f"{counts.kept:,} of {counts.examples:,} examples, {counts.tokens:,} tokens"
    lost = counts.examples - counts.kept
    if lost or counts.too_long_cut:
        seen += (
            f"; 너무 김 (too long): {counts.too_long_dropped:,} dropped, {counts.too_long_cut:,} cut; "
            f"배울 것 없음 (nothing to learn): {counts.nothing_to_learn:,}"
        )
    if lost + counts.too_long_cut > MANY_LOST * counts.examples:
        return Finding(name, "note", seen, "data.max_length나 데이터를 보세요 (see data.max_length, or the data).")
    return Finding(name, "ok", seen)


def _template(recipe: Recipe, examples: Examples) -> Finding:
    # the encoder refused already whatever does not fit (mask-boundary, template-tokens)
    seen = f"{recipe.template}: 토큰 경계와 맞음 (fits the tokenizer)"
    return Finding("템플릿 (template)", "ok", seen)


def _learned(train: Sequence[Encoded], counts: Counts) -> Finding:
    name = "배우는 토큰 (learned)"
    each = [one.learned for one in islice(train, SAMPLED)]
    share = counts.learned_tokens / counts.tokens
    seen = f"예시마다 {min(each):,}–{median(each):,.0f}–{max(each):,} (min–median–max), 전체의 {share:.0%}"
    if median(each) < 2:
        return Finding(name, "note", seen, "답이 끝 토큰뿐인지 보세요 (answers may be the end token alone).")
    return Finding(name, "ok", seen)


def _ends(recipe: Recipe, examples: Examples) -> list[Finding]:
    """BOS once where the tokenizer has one, the end of an answer learned, padding never."""
    encoder = examples.encoder
    vocabulary = encoder.vocabulary
    backend = vocabulary.backend
    bos = None if vocabulary.bos is None else backend.token_to_id(vocabulary.bos)
    stops = frozenset(vocabulary.stop_ids(encoder.template))
    looked = list(islice(examples.train, SAMPLED))
    begun = sum(one.ids[0] == bos for one in looked)
    doubled = [one.origin for one in looked if bos is not None and one.ids[:2] == (bos, bos)]
    ended = sum(_last_learned(one) in stops for one in looked)
    pad = backend.id_to_token(vocabulary.pad_id)
    return [
        _begin(vocabulary.bos, begun, len(looked), doubled),
        _end(vocabulary.eos, ended, len(looked), cut=recipe.data.too_long == "cut"),
        Finding("채움 (pad)", "ok", f"{pad}: 자리로 가림 (masked by position)"),
    ]


def _begin(bos: str | None, begun: int, count: int, doubled: Sequence[str]) -> Finding:
    name = "시작 토큰 (BOS)"
    if bos is None:
        return Finding(name, "ok", "없음; 베이스도 없이 배웠음 (none)")
    seen = f"{bos} {begun:,}/{count:,}"
    if doubled:
        fix = f"{doubled[0]}부터 보세요 (first: {doubled[0]})."
        return Finding(name, "bad", f"{seen}; {len(doubled):,}개에 두 번 들어감 (doubled)", fix)
    # the base's own EOS as BOS (GPT-NeoX) is written by no template
    return Finding(name, "ok", seen + (" (쓰지 않음, not used)" if not begun else ""))


def _end(eos: str, ended: int, count: int, *, cut: bool) -> Finding:
    name = "끝 토큰 (EOS)"
    seen = f"{eos} {ended:,}/{count:,} 답이 배움 (answers learn it)"
    if ended == count:
        return Finding(name, "ok", seen)
    state: State = "note" if ended else "bad"
    fix = "답을 멈추지 못하게 됩니다. 템플릿과 데이터를 보세요 (see template and data)."
    if cut and ended:
        fix = "잘린 답은 끝을 배우지 않습니다 (answers that were cut do not learn it)."
    return Finding(name, state, seen, fix)


def _composed(examples: Examples) -> Finding:
    """Hangul in single letters, as macOS writes file names: the same text in about twice the tokens."""
    name = "한글 (NFC)"
    backend = examples.encoder.vocabulary.backend
    some = examples.train[:DECODED]
    texts = backend.decode_batch([list(one.ids) for one in some], skip_special_tokens=False)
    apart = [
        one.origin for one, text in zip(some, texts, strict=True) if not unicodedata.is_normalized("NFC", text)
    ]
    if apart:
        seen = f"{len(apart):,}/{len(some):,}개가 풀린 자모 (decomposed): {apart[0]}"
        fix = "토큰이 두 배가 됩니다. koalpaca data prepare로 합치세요 (twice the tokens: prepare the data)."
        return Finding(name, "note", seen, fix)
    return Finding(name, "ok", f"{len(some):,}개 모두 합쳐진 글자 (composed)")


def _is_apart(text: str) -> bool:
    # letters that NFC leaves as they are belong to old Korean
    return _LETTER.search(text) is not None and not unicodedata.is_normalized("NFC", text)


def _last_learned(one: Encoded) -> int:
    return next((label for label in reversed(one.labels) if label != NOT_LEARNED), NOT_LEARNED)
