"""Literal special tokens in a text, made harmless: one space goes in, and no tokenizer sees the token.

This house never reads content as special tokens; this is for other tools that read train.jsonl. A space
is chosen over a zero-width character because that would be invisible (and is removed by `invisible`), and
over deleting because the text may be about the token. Code is not spared: an end-of-text token ends the
text there too.
"""

from __future__ import annotations

import re

_NAMES = (
    "bos|eos|pad|unk|mask|sep|cls|usr|sys|s|start_of_turn|end_of_turn|start_of_image|end_of_text|begin_of_text"
    "|start_of_text|fim_prefix|fim_middle|fim_suffix|extra_id_[0-9]{1,3}"
)
_TOKEN = re.compile(
    r"<(?=\|[^\s|<>]{1,64}\|>)"  # <|endoftext|>, <|im_start|>, <|eot_id|>
    r"|\[(?=\|/?[A-Za-z_]{1,32}\|\])"  # [|user|], [|endofturn|]
    r"|\[(?=/?INST\])"
    r"|<(?=</?SYS>>)"
    rf"|<(?=/?(?:{_NAMES})>)"
    r"|\[(?=(?:BOS|EOS|PAD|UNK|MASK|SEP|CLS)\])"
)
_HEADER = re.compile(
    r"^(#{2,4} ?(?:질문|답변|명령어|맥락|입력|응답|지시|지시문|출력|Instruction|Input|Response|Output|Human"
    r"|Assistant|System|User|Question|Answer|Context)(?:\([^()\n]{1,20}\))?):",
    re.MULTILINE,
)


def neutralise(text: str) -> str:
    """`<|eot_id|>` becomes `< |eot_id|>`, `[INST]` `[ INST]`, and `### 답변:` at a line's start `### 답변 :`."""
    if "<" in text or "[" in text:
        text = _TOKEN.sub(r"\g<0> ", text)
    if "##" in text:
        text = _HEADER.sub(r"\1 :", text)
    return text
