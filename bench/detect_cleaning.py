"""How well cleaning and masking find damage in real Korean text: python bench/detect_cleaning.py

Each damage is put on real texts (seeded), and every detector also sees texts without it. A text counts as
free of a damage by a rough rule of its own here (`_NATURAL`), since reviews do contain ㅋㅋㅋㅋㅋ and judgments
do contain runs of spaces. Personal data has no such rule: whatever is found in the clean texts is `false`,
though the addresses found there are addresses.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from score import Score

from koalpaca_tune.config.cleaning import Kind
from koalpaca_tune.data.cleaning.characters import LETTERS
from koalpaca_tune.data.cleaning.clean import clean
from koalpaca_tune.data.cleaning.privacy import mask
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

SHARED = Path(__file__).parents[2] / "shared" / "data"


class Damaged(NamedTuple):
    """A damaged text, and what it should become (None: it cannot be restored)."""

    text: str
    restored: str | None


Damage = Callable[[str, random.Random], Damaged | None]


def _nfd(text: str, rng: random.Random) -> Damaged | None:
    made = unicodedata.normalize("NFD", text)
    return Damaged(made, text) if made != text else None


def _apart(text: str) -> str:
    return "".join(LETTERS.get(ord(char), char) for char in unicodedata.normalize("NFD", text))


_HALF = {
    unicodedata.lookup(name.removeprefix("HALFWIDTH ")): chr(code)
    for code in range(0xFFA1, 0xFFDD)
    if (name := unicodedata.name(chr(code), ""))
}


def _half_width(text: str, rng: random.Random) -> Damaged | None:
    made = "".join(_HALF.get(char, char) for char in _apart(text))
    return Damaged(made, text) if made != text and not re.search("[ㄱ-ㅎㅏ-ㅣ]", text) else None


def _full_width(text: str, rng: random.Random) -> Damaged | None:
    if len(re.findall("[!-~]", text)) < 2 or not text.isprintable() or re.search("[！-～]|[^\0-\u2fff가-힣]", text):
        return None
    return Damaged("".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text), text)


def _typed_apart(text: str, rng: random.Random) -> Damaged | None:
    words = re.findall("(?<![가-힣ㄱ-ㅣ])[가-힣]{2,5}(?![가-힣ㄱ-ㅣ])", text)
    words = [word for word in words if not set(_apart(word)) <= set("ㅋㅎㅇㅠㅜㅗㅛㅡ")]
    if not words:
        return None
    word = rng.choice(words)
    return Damaged(text.replace(word, _apart(word), 1), text)


def _invisible(text: str, rng: random.Random) -> Damaged | None:
    made = text
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(made) + 1)
        made = made[:at] + rng.choice("\u200b\ufeff\u200e\u2060\x07\u3164\u202a") + made[at:]
    return Damaged(made, text)


def _cp1252(raw: bytes) -> str:
    """As a browser reads it: cp1252, and its five gaps as control characters."""
    return "".join(bytes((byte,)).decode("cp1252", "ignore") or chr(byte) for byte in raw)


def _read_as(written: str, read: Callable[[bytes], str]) -> Damage:
    def damage(text: str, rng: random.Random) -> Damaged | None:
        if len(re.findall("[가-힣]", text)) < 2:
            return None
        try:
            made = read(text.encode(written))
        except UnicodeError:
            return None
        return Damaged(made, text)

    return damage


def _one_word(text: str, rng: random.Random) -> Damaged | None:
    words = re.findall("[가-힣]{2,}", text)
    if len(words) < 2:
        return None
    word = rng.choice(words)
    try:
        return Damaged(text.replace(word, word.encode(rng.choice(["cp949", "utf-8"])).decode("latin-1"), 1), text)
    except UnicodeError:
        return None


def _survives(word: str) -> bool:
    try:
        word.encode().decode("cp949")
    except UnicodeDecodeError:
        return False
    return True


def _whole(text: str, rng: random.Random) -> Damaged | None:
    """Most words lose bytes in cp949; a text is made of those that do not."""
    words = [word for word in text.split() if re.fullmatch("[가-힣]{2,}[.!]?", word) and _survives(word)]
    kept = " ".join(words)
    return Damaged(kept.encode().decode("cp949"), kept) if words else None


def _lossy(text: str, rng: random.Random) -> Damaged | None:
    if len(re.findall("[가-힣]", text)) < 6:
        return None
    return Damaged(text.encode().decode("cp949", "replace").replace("\ufffd", "?"), None)


def _replaced(text: str, rng: random.Random) -> Damaged | None:
    if not re.search("[가-힣]{2}", text):
        return None
    raw = text.encode("cp949", "ignore").decode("utf-8", "replace").encode()
    return (
        Damaged(raw.decode("cp949", "replace").replace("\ufffd", "?"), None) if b"\xef\xbf\xbd" * 2 in raw else None
    )


def _markup(text: str, rng: random.Random) -> Damaged | None:
    words = text.split(" ")
    if len(words) < 3 or "\n" in text or re.search("[<>&`|]|태그|코드", text):
        return None
    at = rng.randrange(1, len(words) - 1)
    head, word, tail = " ".join(words[:at]), words[at], " ".join(words[at + 1 :])
    lines = f"{head}\n{word} {tail}"
    made = [
        (f"{head}<br>{word} {tail}", lines),
        (f"{head}<BR />{word} {tail}", lines),
        (f"<p>{head}</p><p>{word} {tail}</p>", lines),
        (f"<div class='txt'>{head}</div>\n{word} {tail}", lines),
        (f"<b>{head}</b> {word} {tail}", text),
        (f'{head} <a href="https://news.kr/1?a=1&amp;b=2" target="_blank">{word}</a> {tail}', text),
        (f'{head} <span style="color:#ff0000;">{word}</span> {tail}', text),
        (f"{head} <font color=red>{word}</font> {tail}", text),
        (f"{head}&nbsp;{word} {tail}", text),
        (f"{head} {''.join(f'&#{ord(char)};' for char in word)} {tail}", text),
        (f"{head} &lt;{word}&gt; {tail}", f"{head} <{word}> {tail}"),
        (f"{head} &quot;{word}&quot; {tail}", f'{head} "{word}" {tail}'),
        (f"{head} <!-- 광고 -->{word} {tail}", text),
        (f"{head} <script>var a = 1;</script>{word} {tail}", text),
    ]
    return Damaged(*rng.choice(made))


def _laughter(text: str, rng: random.Random) -> Damaged | None:
    char = rng.choice("ㅋㅎㅠㅜ!?~^")
    text = text.rstrip(".?!~")
    if not text or not "가" <= text[-1] <= "힣":
        return None
    return Damaged(text + char * rng.randint(4, 30), text + char * 3)


_TOKENS = (
    *(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
    ),
    *("<s>", "</s>", "<unk>", "<pad>", "[PAD]", "[|endofturn|]", "<end_of_turn>", "\n### 질문:", "\n### 답변:"),
    *("\n### Human:", "\n### Instruction(명령어):"),
)


def _special_tokens(text: str, rng: random.Random) -> Damaged | None:
    words = text.split(" ")
    at = rng.randrange(len(words) + 1)
    token = rng.choice(_TOKENS)
    broken = token.replace(":", " :") if "#" in token else token[0] + " " + token[1:]
    made = (" ".join((*words[:at], part, *words[at:])).strip().replace(" \n", "\n") for part in (token, broken))
    return Damaged(*made)


def _spaces(text: str, rng: random.Random) -> Damaged | None:
    if " " not in text or "\n" in text:
        return None
    made = "".join(
        rng.choice([" ", "  ", "   ", "\u3000", "\xa0", " \t"]) if char == " " else char for char in text
    )
    made += rng.choice(["", "  ", "\n\n\n\n끝."])
    return Damaged(made, text + "\n\n끝." * made.endswith("끝.")) if made != text else None


STEP_DAMAGES: dict[str, tuple[str, Damage]] = {
    "NFD": ("nfc", _nfd),
    "half-width jamo": ("jamo", _half_width),
    "syllables typed apart": ("jamo", _typed_apart),
    "full-width ASCII": ("width", _full_width),
    "invisible": ("invisible", _invisible),
    "cp949 as latin-1": ("mojibake", _read_as("cp949", lambda raw: raw.decode("latin-1"))),
    "cp949 as cp1252": ("mojibake", _read_as("cp949", _cp1252)),
    "UTF-8 as latin-1": ("mojibake", _read_as("utf-8", lambda raw: raw.decode("latin-1"))),
    "UTF-8 as cp1252": ("mojibake", _read_as("utf-8", _cp1252)),
    "one word of mojibake": ("mojibake", _one_word),
    "UTF-8 as cp949, whole": ("mojibake", _whole),
    "UTF-8 as cp949, lossy": ("row-encoding", _lossy),
    "U+FFFD as cp949": ("row-encoding", _replaced),
    "HTML": ("markup", _markup),
    "laughter": ("laughter", _laughter),
    "special tokens": ("special-tokens", _special_tokens),
    "spaces": ("spaces", _spaces),
}
"""Damage -> the step (or error code) that should notice, and how it is done."""

_SPACES = re.compile(r"[ \t\xa0\u3000]{2}|[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000\t]|\s\n|\n\n\n|^\s|\s$")
_NATURAL: dict[str, Callable[[str], object]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text) != text,
    "width": re.compile("[Ａ-Ｚａ-ｚ０-９！-／：-＠［-｀｛-～￦]").search,
    "invisible": lambda text: (
        any(unicodedata.category(char) in ("Cc", "Cf") and char != "\n" for char in text) or "\u3164" in text
    ),
    "markup": re.compile(r"&(?:[a-z]+|#\w+);|<br|</|<section [^<>]*=", re.IGNORECASE).search,
    "laughter": re.compile(r"([ㄱ-ㅣ!?~^;.…])\1{2}|(\?!|!\?|ㅋㅎ|ㅎㅋ|ㅠㅜ|ㅜㅠ)\2").search,
    "spaces": _SPACES.search,
    "row-encoding": re.compile("\ufffd").search,
}


def _resident_number(rng: random.Random) -> str:
    year, month, day = rng.randrange(100), rng.randint(1, 12), rng.randint(1, 28)
    sex = rng.choice("34" if year < 25 else "12") if rng.random() < 0.8 else rng.choice("78" if year < 25 else "56")
    first = f"{year:02}{month:02}{day:02}"
    digits = [int(char) for char in f"{first}{sex}{rng.randrange(100_000):05}"]
    check = (11 - sum(n * w for n, w in zip(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=True)) % 11) % 10
    if sex in "5678":
        check = (check + 2) % 10
    number = f"{first}-{''.join(map(str, digits[6:]))}{check}"
    if year in range(20, 25) and sex in "34":  # born since October 2020, say: no check digit
        return f"{number[:-1]}{rng.randrange(10)}"
    return number if rng.random() < 0.7 else number.replace("-", rng.choice(["", " ", " - "]))


def _phone(rng: random.Random) -> str:
    four = [f"{rng.randrange(10_000):04}" for _ in range(2)]
    mark = rng.choice(["-", "-", "-", ".", " ", ""])
    made = [
        mark.join(("010", *four)),
        mark.join(("010", *four)),
        f"+82-10-{four[0]}-{four[1]}",
        f"+82 10 {four[0]} {four[1]}",
        f"010)({four[0]})-{four[1]}".replace("(", "").replace(")-", "-"),
        f"02-{rng.randint(200, 999)}-{four[1]}",
        f"0{rng.choice([31, 32, 42, 51, 53, 62, 64])}-{rng.randint(200, 999)}-{four[1]}",
        f"(0{rng.choice([2, 31, 51])}) {rng.randint(200, 999)}-{four[1]}",
        f"070-{four[0]}-{four[1]}",
        f"011-{rng.randint(200, 999)}-{four[1]}",
    ]
    return rng.choice(made)


def _email(rng: random.Random) -> str:
    name = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789._") for _ in range(rng.randint(2, 10)))
    host = rng.choice(["naver.com", "gmail.com", "hanmail.net", "korea.ac.kr", "daum.net", "my-shop.co.kr"])
    return f"k{name}1@{host}"


def _card(rng: random.Random) -> str:
    prefix = rng.choice(["4", "51", "55", "9410", "9490", "6250", "3560", "37", "2300"])
    length = 15 if prefix == "37" else 16
    digits = [int(char) for char in prefix] + [rng.randrange(10) for _ in range(length - len(prefix) - 1)]
    total = sum(digits[-2::-2]) + sum(n * 2 - 9 * (n > 4) for n in digits[-1::-2])
    number = "".join(map(str, digits)) + str(-total % 10)
    mark = rng.choice(["-", "-", " ", ""])
    if length == 15:
        return mark.join((number[:4], number[4:10], number[10:]))
    return mark.join(number[n : n + 4] for n in range(0, 16, 4))


def _account(rng: random.Random) -> str:
    bank, form = rng.choice(
        [
            *(("국민은행", "######-##-######"), ("신한은행", "###-###-######"), ("우리은행", "####-###-######")),
            *(("하나은행", "###-######-#####"), ("농협", "###-####-####-##"), ("기업은행", "###-######-##-###")),
            *(
                ("카카오뱅크", "3333-##-#######"),
                ("토스뱅크", "####-####-####"),
                ("새마을금고", "####-####-####-#"),
            ),
            *(("우체국", "######-##-######"), ("계좌번호:", "############"), ("신한", "###-###-######")),
        ]
    )
    number = "".join(str(rng.randrange(1, 10)) if char == "#" else char for char in form)
    return f"{bank} {number}"


def _address(rng: random.Random) -> str:
    n, m = rng.randint(1, 400), rng.randint(1, 99)
    flat = f"{rng.randint(101, 130)}동 {rng.randint(101, 2504)}호"
    made = [
        f"서울특별시 강남구 테헤란로 {n}, {flat}",
        f"서울 마포구 월드컵북로{m}길 {n}",
        f"경기도 성남시 분당구 판교역로 {n}",
        f"경기 수원시 영통구 봉영로 {n}번길 {m}",
        f"부산 해운대구 우동 {n}-{m}",
        f"대구광역시 수성구 범어동 {n}번지",
        f"전북 전주시 완산구 효자로 {n} {flat}",
        f"강원도 춘천시 남산면 강촌리 {n}-{m}",
        f"서울시 노원구 상계동 {n} 주공아파트 {flat}",
        f"래미안아파트 {flat}",
        f"인천광역시 연수구 송도과학로 {m} 더샵 {flat}",
        f"제주특별자치도 서귀포시 중앙로 {n}",
    ]
    return rng.choice(made)


_SAID: dict[Kind, tuple[Callable[[random.Random], str], tuple[str, ...]]] = {
    "resident-number": (
        _resident_number,
        ("주민번호는 {}입니다.", "제 주민등록번호 {} 맞죠?", "({})", "{}로 조회해 주세요."),
    ),
    "phone": (_phone, ("연락처는 {}입니다.", "{}로 전화 주세요.", "전화: {}", "문의 {}")),
    "email": (_email, ("메일은 {}입니다.", "{}로 보내 주세요.", "이메일: {}", "<{}>")),
    "card": (_card, ("카드 번호는 {}예요.", "{} 결제가 안 돼요.", "카드: {}")),
    "account": (_account, ("{}로 입금해 주세요.", "{} 예금주 김민수", "계좌는 {}이에요.", "{}입니다.")),
    "address": (_address, ("주소는 {}입니다.", "{}로 보내 주세요.", "저는 {}에 살아요.", "배송지: {}")),
}


def rows(texts: Sequence[str] | None = None, damaged: int = 300, seed: int = 42) -> list[Score]:
    """Scores of every damage.

    Args:
        texts: real texts; None reads ../shared/data.
        damaged: texts to damage in each way (fewer where fewer can be).
        seed: which texts, and where the damage goes.
    """
    texts = shared_texts() if texts is None else texts
    texts = [text.strip() for text in texts if text.strip()]
    short = [text for text in texts if len(text) < 300]
    seen = [_seen(text) for text in texts]
    scores = []
    for name, (step, damage) in STEP_DAMAGES.items():
        rng = random.Random(f"{seed} {name}")
        natural = _NATURAL.get(step)
        free = [flags for text, flags in zip(texts, seen, strict=True) if not (natural and natural(text))]
        sound = [text for text in short if not any(rule(text) for rule in _NATURAL.values())]
        made = _made(sound, damage, rng, damaged)
        found = repaired = 0
        for one in made:
            flags, after = _cleaned(one.text)
            found += step in flags
            repaired += after == one.restored
        restorable = any(one.restored is not None for one in made)
        false = sum(step in flags for flags in free)
        scores.append(Score(name, len(made), len(free), found, false, repaired if restorable else None))
    return scores + _personal(texts, short, damaged, seed)


def _made(texts: Sequence[str], damage: Damage, rng: random.Random, count: int) -> list[Damaged]:
    order = rng.sample(texts, len(texts))
    return list(islice((made for text in order if (made := damage(text, rng))), count))


def _personal(texts: Sequence[str], short: Sequence[str], damaged: int, seed: int) -> list[Score]:
    scores = []
    for kind, (value, sentences) in _SAID.items():
        rng = random.Random(f"{seed} {kind}")
        found = exact = 0
        for text in rng.choices(short, k=damaged):
            said, sentence = value(rng), rng.choice(sentences)
            masked = mask(_pair(f"{text} {sentence.format(said)}"), [kind])
            after = masked.conversation.turns[-1].content
            found += masked.counts[kind] > 0
            # the bank's name stays
            exact += re.sub(r"\[[^\]]+\]", "@", after) == re.sub(
                r"\[[^\]]+\]", "@", f"{text} {sentence.format(_hidden(kind, said))}"
            )
        false = sum(mask(_pair(text), [kind]).counts[kind] > 0 for text in texts)
        scores.append(Score(kind, damaged, len(texts), found, false, exact))
    return scores


def _hidden(kind: Kind, value: str) -> str:
    return f"{value.rpartition(' ')[0]} [x]" if kind == "account" else "[x]"


def _pair(text: str) -> Conversation:
    return Conversation((Turn("user", "질문"), Turn("assistant", text)), "bench:1")


def _cleaned(text: str) -> tuple[frozenset[str], str | None]:
    try:
        cleaned = clean(_pair(text))
    except KoalpacaError as error:
        return frozenset(problem.code for problem in error.problems), None
    return frozenset(cleaned.changes), cleaned.conversation.turns[-1].content


def _seen(text: str) -> frozenset[str]:
    return _cleaned(text)[0]


def shared_texts(seed: int = 42) -> list[str]:
    """Real texts of many kinds: chats, reviews, question pairs, judgments, Wikipedia (beginnings of articles)."""
    import zstandard

    rng = random.Random(seed)
    with (SHARED / "chatbot_data/ChatbotData.csv").open(encoding="utf-8", newline="") as file:
        chats = [text for row in csv.reader(file) for text in row[:2]]
    with (SHARED / "nsmc/train.tsv").open(encoding="utf-8", newline="") as file:
        reviews = [line.split("\t")[1] for line in file.read().split("\n")[1:] if line.count("\t") == 2]
    with (SHARED / "question_pair/kor_pair_train.csv").open(encoding="utf-8", newline="") as file:
        questions = [text for row in csv.reader(file) for text in row[3:5]]
    with gzip.open(SHARED / "precedents/train.jsonl.gz", "rt", encoding="utf-8") as file:
        judgments = [json.loads(line)["judgment"] for line in file]
    with (
        (SHARED / "kowiki/kowiki.jsonl.zst").open("rb") as raw,
        zstandard.ZstdDecompressor().stream_reader(raw) as file,
    ):
        lines = islice(io.TextIOWrapper(file, encoding="utf-8"), 0, 24_000, 6)
        articles = [json.loads(line)["text"][:3000] for line in lines]
    return [
        text
        for texts, count in ((chats, 4000), (reviews, 6000), (questions, 2000), (judgments, 1000), (articles, 4000))
        for text in rng.sample(texts, count)
    ]


def speed(count: int = 40_000) -> float:
    """Conversations a second through clean and mask: chats, and reviews with a short answer."""
    with (SHARED / "chatbot_data/ChatbotData.csv").open(encoding="utf-8", newline="") as file:
        made = [(row[0], row[1]) for row in csv.reader(file)]
    with (SHARED / "nsmc/train.tsv").open(encoding="utf-8", newline="") as file:
        made += [(line.split("\t")[1], "긍정") for line in file.read().split("\n")[1:] if line.count("\t") == 2]
    conversations = [
        Conversation((Turn("user", question), Turn("assistant", answer)), "bench:1")
        for question, answer in random.Random(0).sample([pair for pair in made if all(map(str.strip, pair))], count)
    ]
    start = time.process_time()
    for conversation in conversations:
        with suppress(KoalpacaError):
            mask(clean(conversation).conversation)
    return count / (time.process_time() - start)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damaged", type=int, default=300)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    print("| damage | damaged | clean | found | false | precision | recall | restored exactly |")
    print("|---|---|---|---|---|---|---|---|")
    for score in rows(damaged=options.damaged, seed=options.seed):
        restored = "-" if score.repaired is None else f"{score.repaired / score.damaged:.1%}"
        print(
            f"| {score.name} | {score.damaged:,} | {score.clean:,} | {score.found:,} | {score.false:,}"
            f" | {score.precision:.1%} | {score.recall:.1%} | {restored} |"
        )
    print(f"\nclean and mask: {speed():,.0f} short conversations a second on one core")


if __name__ == "__main__":
    main()
