"""What tests share: no network, tiny random bases of both families, small Korean conversations.

The Llama twin's tokenizer has Llama-3's special tokens and puts BOS in front by itself, as Llama-3's does.
Tests of text take it with the embedded base's entries; the tiny bases have entries for the conversations
below only, so that a test can load one in a blink. Heavy libraries are imported inside fixtures, so that
the tests of pure modules start at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# before huggingface_hub is imported anywhere
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# before bitsandbytes imports triton, which asks once: the kernels' tests run them interpreted, on the CPU
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
from hypothesis import settings

from koalpaca_tune.records import Conversation, Turn

settings.register_profile("house", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("house")

LLAMA3_SPECIALS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
FAMILIES = ("gpt_neox", "llama")

TALKS = (
    (("user", "대한민국의 수도는 어디인가요?"), ("assistant", "서울입니다.")),
    (("user", "비 오는 날에는 뭘 하면 좋을까?"), ("assistant", "따뜻한 차를 마시며 책을 읽어 보세요.")),
    (("system", "짧게 답하세요."), ("user", "물은 몇 도에서 끓나요?"), ("assistant", "섭씨 백 도입니다.")),
    (
        ("user", "김치찌개를 끓이려면 무엇이 필요해?"),
        ("assistant", "김치와 돼지고기, 두부가 필요합니다."),
        ("user", "고기가 없으면?"),
        ("assistant", "참치를 넣어도 맛있습니다."),
    ),
    (("user", "한글은 누가 만들었나요?"), ("assistant", "세종대왕이 만들었습니다.")),
    (("user", "잠이 안 올 때 어떻게 하지?"), ("assistant", "불을 끄고 천천히 숨을 쉬어 보세요.")),
    (("user", "가장 높은 산은?"), ("assistant", "에베레스트산입니다.")),
    (("user", "다음 글을 한 문장으로 줄여 줘."), ("assistant", "봄이 오면 마을 사람들은 함께 꽃을 심는다.")),
    (("user", "고양이는 왜 야옹 하고 울어?"), ("assistant", "사람에게 말을 걸려고 그렇습니다.")),
    (("user", "사과 세 개에서 하나를 먹으면 몇 개 남아?"), ("assistant", "두 개가 남습니다.")),
    (("user", "여행 갈 때 꼭 챙길 것은?"), ("assistant", "신분증과 충전기, 그리고 갈아입을 옷입니다.")),
    (("user", "오늘 기분이 좀 우울해."), ("assistant", "그런 날도 있지요. 잠깐 걸어 보는 건 어떨까요?")),
)


def talk(*turns: tuple[str, str], origin: str = "") -> Conversation:
    return Conversation(tuple(Turn(role, content) for role, content in turns), origin)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def conversations() -> list[Conversation]:
    return [talk(*turns, origin=f"talks.jsonl:{n}") for n, turns in enumerate(TALKS, 1)]


def small_words() -> Any:
    """A byte-level BPE trained on the conversations."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        ["### 질문: \n\n### 답변: ", *(text for turns in TALKS for _, text in turns)], trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|pad|>")


def llama_words(words: Any = None) -> Any:
    """A tokenizer (the embedded one) with Llama-3's special tokens, which begins every text with BOS."""
    from tokenizers import processors

    from koalpaca_tune.models import tokenizer

    words = words or tokenizer.load_pretrained("embedded")
    begin, *others = LLAMA3_SPECIALS
    words.add_special_tokens({"bos_token": begin})
    words.add_special_tokens({"additional_special_tokens": others}, replace_extra_special_tokens=False)
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, words.convert_tokens_to_ids(begin))]
    )
    return words


@pytest.fixture(scope="session")
def new_llama_words() -> Callable[[], Any]:
    """Makes the Llama twin's tokenizer anew, for tests that change it."""
    return llama_words


def build_tiny(folder: Path, family: str, words: Any, *, seed: int = 1, layers: int = 2, width: int = 64) -> Path:
    """A random base of a family, with its tokenizer, in a folder."""
    import torch
    import transformers

    shape = {
        "vocab_size": len(words),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.08,
        "tie_word_embeddings": False,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    config: Any
    if family == "llama":
        config = transformers.LlamaConfig(**shape, num_key_value_heads=2)
    else:
        rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
        config = transformers.GPTNeoXConfig(**shape, rope_parameters=rotary, use_parallel_residual=True)
    torch.manual_seed(seed)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with a tiny random base for each family."""
    top = tmp_path_factory.mktemp("tiny")
    words = {"gpt_neox": small_words(), "llama": llama_words(small_words())}
    return {family: str(build_tiny(top / family, family, words[family])) for family in FAMILIES}


@pytest.fixture(scope="session", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tiny_bases: dict[str, str]) -> str:
    """The folder of a tiny base; every test that takes it runs on both families."""
    return tiny_bases[request.param]
