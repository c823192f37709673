"""GGUF files hold what the model has, and a forward pass over the file alone gives the model's logits."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from koalpaca_tune.config.recipe import Base
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.export import gguf_tensors, gguf_tokens, llama_cpp_check
from koalpaca_tune.export.gguf_file import write
from koalpaca_tune.export.model import Model, open_model
from koalpaca_tune.models import tokenizer

gguf = pytest.importorskip("gguf", reason="needs the package gguf (extra: export)")


def opened(folder: Path) -> Model:
    return open_model(Base(path=str(folder)), "koalpaca")


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields and (dequantised) tensors of a file."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    arrays = {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in reader.tensors}
    return fields, arrays


def test_what_a_file_says(model_folders: dict[str, Path], tmp_path: Path) -> None:
    for family, folder in model_folders.items():
        model = opened(folder)
        write(model, tmp_path / f"{family}.gguf", "f16")
        fields, arrays = read(tmp_path / f"{family}.gguf")
        arch = {"gpt_neox": "gptneox", "llama": "llama"}[family]
        assert fields["general.architecture"] == arch
        assert fields[f"{arch}.block_count"] == 2
        assert fields[f"{arch}.rope.dimension_count"] == {"gpt_neox": 8, "llama": 16}[family]
        assert fields["tokenizer.chat_template"] == model.chat_template
        assert "### 질문: " in fields["tokenizer.chat_template"]
        vocabulary = model.vocabulary
        assert fields["tokenizer.ggml.eos_token_id"] == vocabulary.id(vocabulary.eos)
        assert fields["tokenizer.ggml.add_bos_token"] is (family == "llama")
        assert len(fields["tokenizer.ggml.tokens"]) == len(arrays["token_embd.weight"])
        kinds = fields["tokenizer.ggml.token_type"]
        assert kinds[vocabulary.id(vocabulary.eos)] == gguf_tokens.CONTROL
        assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_neox_by_hand() -> None:
    """Two heads of width 2: rows q0 k0 v0 q1 k1 v1 become q0 q1 k0 k1 v0 v1."""
    config = transformers.GPTNeoXConfig(hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    names = ["gpt_neox.embed_in.weight", "gpt_neox.layers.0.attention.query_key_value.bias"]
    plan = gguf_tensors.tensors(config, "gpt_neox", names)
    assert [one.name for one in plan] == ["token_embd.weight", "blk.0.attn_qkv.bias", "output.weight"]
    rows = np.arange(12, dtype=np.float32)
    assert plan[1].arrange(rows).tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]


def test_llama_by_hand() -> None:
    """One head of width 4: the halves (0 1) (2 3) become the pairs (0 2) (1 3)."""
    config = transformers.LlamaConfig(hidden_size=4, num_attention_heads=1, num_key_value_heads=1)
    [plan] = gguf_tensors.tensors(config, "model", ["model.layers.3.self_attn.q_proj.weight"])
    assert plan.name == "blk.3.attn_q.weight"
    rows = np.arange(4, dtype=np.float32)[:, None].repeat(4, 1)
    assert plan.arrange(rows)[:, 0].tolist() == [0, 2, 1, 3]


def test_longer_positions_by_the_file_are_those_of_transformers(model_folders: dict[str, Path]) -> None:
    config = transformers.AutoConfig.from_pretrained(model_folders["llama"])
    factors = gguf_tensors.rotary_factors(config)
    assert factors is not None
    theirs = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq
    ours = 1.0 / 10000.0 ** (np.arange(0, 16, 2) / 16) / factors
    assert np.allclose(ours, theirs.numpy(), rtol=1e-6)
    assert len(set(factors.tolist())) > 2


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_the_file_has_the_models_logits(model_folder: Path, kind: str, tmp_path: Path) -> None:
    """The file's tensors, put back by their names alone into a fresh model of transformers."""
    model = opened(model_folder)
    written = write(model, tmp_path / "m.gguf", kind)
    assert written.largest <= {"f32": 0.0, "f16": 5e-4, "q8_0": 4.8e-3}[kind]
    fields, arrays = read(tmp_path / "m.gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    again = transformers.AutoModelForCausalLM.from_config(theirs.config)
    missing = again.load_state_dict(restored(arrays, fields, theirs.config), strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    ids = torch.tensor([model.vocabulary.backend.encode("비 오는 날에는 뭘 하면 좋을까?").ids])
    with torch.no_grad():
        apart = (again.eval()(ids).logits - theirs(ids).logits).abs()
    assert float(apart.max()) < {"f32": 1e-4, "f16": 2e-2, "q8_0": 0.5}[kind]


def restored(arrays: dict[str, Any], fields: dict[str, Any], config: Any) -> dict[str, torch.Tensor]:
    """transformers' names and order of rows, worked out from llama.cpp's, independently of the writer."""
    width = config.hidden_size // config.num_attention_heads
    names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_qkv": "attention.query_key_value",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "ffn_gate": "mlp.gate_proj",
    }
    neox = fields["general.architecture"] == "gptneox"
    names |= (
        {"attn_output": "attention.dense", "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h"}
        if neox
        else {"attn_output": "self_attn.o_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    )
    body = "gpt_neox" if neox else "model"
    outer = {"token_embd": "embed_in", "output_norm": "final_layer_norm"} if neox else {}
    outer = outer or {"token_embd": "embed_tokens", "output_norm": "norm"}
    found = {}
    for name, stored in arrays.items():
        array = torch.from_numpy(np.array(stored))
        *_, part, ending = name.split(".")
        if name == "rope_freqs.weight" or name == "output.weight":
            if name == "output.weight":
                found["lm_head.weight"] = array
            continue
        if not name.startswith("blk."):
            found[f"{body}.{outer[part]}.{ending}"] = array
            continue
        if part == "attn_qkv":
            heads = array.view(3, config.num_attention_heads, width, -1)
            array = torch.stack([torch.stack(list(one)) for one in heads.unbind(1)]).reshape(array.shape)
        if part in ("attn_q", "attn_k"):
            pairs = array.view(-1, width // 2, 2, array.shape[-1])
            array = torch.cat([pairs[:, :, 0], pairs[:, :, 1]], 1).reshape(array.shape)
        found[f"{body}.layers.{name.split('.')[1]}.{names[part]}.{ending}"] = array
    return found


def test_llama_cpp_itself(model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    model = opened(model_folder)
    write(model, tmp_path / "m.gguf", "f32")
    checked = llama_cpp_check.check(model, tmp_path / "m.gguf")
    assert checked is not None
    assert checked.otherwise == ()
    # llama.cpp keeps keys and values in float16 and looks GELU up in a table
    assert checked.apart.mean < 0.01
    assert checked.apart.same_argmax > 0.95


def test_without_llama_cpp_nothing_is_compared(no_llama_cpp: None, model_folder: Path, tmp_path: Path) -> None:
    assert llama_cpp_check.check(opened(model_folder), tmp_path / "m.gguf") is None


def test_without_gguf_it_is_said(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert refused(lambda: write(opened(model_folder), tmp_path / "m.gguf", "f16")) == "export-missing"


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(KoalpacaError) as caught:
        call()
    return caught.value.problems[0].code


def test_what_is_there_is_kept(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("mine")
    assert refused(lambda: write(opened(model_folder), tmp_path / "m.gguf", "f16")) == "export-out"
    assert (tmp_path / "m.gguf").read_text() == "mine"


def test_weights_that_float16_cannot_hold(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folders["llama"], tmp_path / "big"))
    stored = load_file(folder / "model.safetensors")
    stored["model.layers.1.mlp.up_proj.weight"][3, 5] = 70000.0
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    assert refused(lambda: write(opened(folder), tmp_path / "m.gguf", "f16")) == "export-range"
    assert not list(tmp_path.glob("*.gguf*"))
    assert not list(tmp_path.glob(".*"))


def test_a_tensor_without_a_place_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folders["llama"], tmp_path / "odd"))
    stored = load_file(folder / "model.safetensors")
    stored["model.layers.0.self_attn.q_norm.weight"] = torch.ones(16)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    assert refused(lambda: write(opened(folder), tmp_path / "m.gguf", "f16")) == "export-tensor"


def test_an_adapter_is_told_to_be_merged_first(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert refused(lambda: opened(tmp_path)) == "export-adapter"


def test_another_template_than_it_was_trained_with(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folders["llama"], tmp_path / "merged"))
    (folder / "record.json").write_text(json.dumps({"name": "나의 모델 v1", "template": {"name": "llama3"}}))
    assert refused(lambda: open_model(Base(path=str(folder)), "koalpaca")) == "export-template"
    model = open_model(Base(path=str(folder)), "llama3")
    assert model.name == "v1"
    assert "<|start_header_id|>" in model.chat_template


# tokenizers


def test_the_cut_is_found_by_the_ids_it_gives() -> None:
    embedded = tokenizer.load("embedded")
    tokens = gguf_tokens.read(embedded, 8200)
    assert tokens.pre == "gpt-2"
    assert tokens.tokens[0] == "<|endoftext|>"
    assert tokens.kinds[0] == gguf_tokens.CONTROL
    assert tokens.tokens[-1] == f"[PAD{8199}]"
    assert tokens.kinds[-1] == gguf_tokens.UNUSED
    assert len(tokens.merges[0].split(" ")) == 2


def byte_level(pattern: str | None, *, normalizer: Any = None) -> Any:
    """A tokenizer that learned words of the samples, cut by a pattern (None: not at all)."""
    backend = Tokenizer(models.BPE())
    steps: list[Any] = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([*gguf_tokens.texts()[:150], "1234 5678 2024 1234 5678 2024 " * 20], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    return tokenizer.vocabulary(fast, "mine")


def test_cuts_of_llama_3_are_told_from_those_of_gpt_2() -> None:
    for name in ("llama-bpe", "qwen2"):
        [pattern] = gguf_tokens.CUTS[name].patterns
        assert gguf_tokens.read(byte_level(pattern), 1200).pre in ("llama-bpe", "qwen2")
    assert gguf_tokens.read(byte_level(gguf_tokens.CUTS["gpt-2"].patterns[0]), 1200).pre == "gpt-2"


def test_a_cut_that_llama_cpp_does_not_have_is_refused() -> None:
    with pytest.raises(KoalpacaError, match="gives its ids; the nearest") as caught:
        gguf_tokens.read(byte_level(None), 1200)
    assert caught.value.problems[0].code == "export-tokenizer"


def test_other_kinds_of_tokenizers_are_refused(model_folders: dict[str, Path]) -> None:
    pattern = gguf_tokens.CUTS["gpt-2"].patterns[0]
    lower = byte_level(pattern, normalizer=normalizers.Lowercase())
    assert refused(lambda: gguf_tokens.read(lower, 1200)) == "export-tokenizer"
    nfc = byte_level(pattern, normalizer=normalizers.NFC())
    assert gguf_tokens.read(nfc, 1200).normalizer == "NFC"
    assert refused(lambda: gguf_tokens.read(nfc, 100)) == "export-tokenizer"


@pytest.fixture(scope="module")
def pieces() -> Any:
    """A tokenizer of Llama 2's kind."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    # rare syllables have no token, so that they come as bytes
    backend.train_from_iterator([text for text in gguf_tokens.texts()[:120] if len(text) < 60], trainer)
    described = json.loads(backend.to_str())
    for byte in range(256):
        described["model"]["vocab"][f"<0x{byte:02X}>"] = len(described["model"]["vocab"])
    described["post_processor"] = json.loads(
        processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]).__getstate__()
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def test_sentencepiece_has_scores_and_joins_as_its_merges_do(pieces: Any, tmp_path: Path) -> None:
    vocabulary = tokenizer.vocabulary(pieces, "mine")
    tokens = gguf_tokens.read(vocabulary, 1300)
    assert (tokens.model, tokens.pre, tokens.merges) == ("llama", "default", ())
    assert tokens.unusual == ()
    assert tokens.kinds[:3] == (gguf_tokens.UNKNOWN, gguf_tokens.CONTROL, gguf_tokens.CONTROL)
    assert tokens.kinds[tokens.tokens.index("<0xEA>")] == gguf_tokens.BYTE
    first, second = json.loads(vocabulary.backend.to_str())["model"]["merges"][:2]
    assert tokens.scores[tokens.tokens.index("".join(first))] == 0.0
    assert tokens.scores[tokens.tokens.index("".join(second))] == -1.0
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**shape, vocab_size=1300, max_position_embeddings=512)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    pieces.save_pretrained(tmp_path / "m")
    model = opened(tmp_path / "m")
    write(model, tmp_path / "m.gguf", "f32")
    fields, _ = read(tmp_path / "m.gguf")
    assert fields["tokenizer.ggml.model"] == "llama"
    assert fields["tokenizer.ggml.unknown_token_id"] == 0
    assert fields["tokenizer.ggml.add_space_prefix"] is True
    checked = llama_cpp_check.check(model, tmp_path / "m.gguf")
    # None without llama-cpp-python
    assert checked is None or checked.otherwise == ()


def test_pieces_joined_otherwise_are_refused(pieces: Any) -> None:
    described = json.loads(pieces.backend_tokenizer.to_str())
    # a pair that makes a token, and that the merges do not allow
    described["model"]["merges"] = described["model"]["merges"][200:]
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)), eos_token="</s>", unk_token="<unk>"
    )
    with pytest.raises(KoalpacaError, match="joins its pieces otherwise on"):
        gguf_tokens.read(tokenizer.vocabulary(fast, "mine"), 1300)
