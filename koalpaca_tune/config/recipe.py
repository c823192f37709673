"""The recipe: one strict model that describes a run. Each field says what it does; there is no other list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from koalpaca_tune.config.check import Strict

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A whole commit, as the Hub names it."""
NoticeName = Literal[
    "not-finite",
    "loss-spike",
    "loss-rising",
    "loss-drop",
    "gradient-norm",
    "dead-adapter",
    "valid-gap",
    "throughput",
    "memory",
    "stalled-data",
]


class Base(Strict):
    """The frozen model that the adapter is trained on."""

    path: str = Field(description="Hub name, local folder, or 'embedded' for the model in the package.")
    revision: str | None = Field(None, description="Commit or tag on the Hub; null: the newest, which is recorded.")
    trust_remote_code: bool = Field(
        False,
        description="Run the Python code that the base brings, pinned by revision (a whole commit) or code_sha256.",
    )
    code_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="SHA-256 of the Python files of a local folder, with trust_remote_code."
    )

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if not self.trust_remote_code:
            if self.code_sha256 is not None:
                raise ValueError(
                    "without trust_remote_code: true, code_sha256 has no effect. | Remove it, or set both."
                )
            return self
        commit = COMMIT.fullmatch(self.revision or "") is not None
        if self.revision is not None and self.code_sha256 is not None:
            raise ValueError("revision pins code of the Hub, code_sha256 that of a folder. | Set one of them.")
        if not commit and self.code_sha256 is None:
            raise ValueError(
                "trust_remote_code: true runs code from elsewhere, and it is not pinned. "
                "| Set base.revision to the whole commit (40 digits, 0-9a-f), or for a folder base.code_sha256."
            )
        return self


class Quantization(Strict):
    """bitsandbytes settings, under bitsandbytes' own names."""

    load_in_4bit: bool = Field(True, description="4-bit base (QLoRA). false: full-precision base (LoRA).")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field("nf4", description="4-bit data type.")
    bnb_4bit_use_double_quant: bool = Field(True, description="Quantise the quantisation constants too.")
    bnb_4bit_compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Type of the matrix products; auto: bfloat16 on CUDA, float32 on the CPU."
    )
    load_in_8bit: bool = Field(
        False, description="8-bit base (LLM.int8), in place of 4 bits; only the plain engine computes it."
    )
    llm_int8_threshold: Annotated[float, Field(ge=0.0)] = Field(
        6.0,
        description="With load_in_8bit: inputs with a larger value in some token stay in 16 bits; 0: none does.",
    )

    @model_validator(mode="before")
    @classmethod
    def _eight_for_four(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("load_in_8bit") is True and "load_in_4bit" not in given:
            return {**given, "load_in_4bit": False}
        return given

    @model_validator(mode="after")
    def _no_idle_keys(self) -> Self:
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit exclude each other. | Set one of them to false.")
        idle = sorted(name for name in self.model_fields_set if name.startswith("bnb_"))
        if not self.load_in_4bit and idle:
            raise ValueError(f"with load_in_4bit: false, {idle[0]} has no effect. | Remove it, or load in 4 bits.")
        if not self.load_in_8bit and "llm_int8_threshold" in self.model_fields_set:
            raise ValueError(
                "with load_in_8bit: false, llm_int8_threshold has no effect. | Remove it, or load in 8 bits."
            )
        return self

    @model_serializer(mode="wrap")
    def _without_idle_keys(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # what is written must be readable again
        written: dict[str, Any] = whole(self)
        idle = set() if self.load_in_4bit else {name for name in written if name.startswith("bnb_")}
        if not self.load_in_8bit:
            # results judged before there were 8 bits stay results of the same model
            idle |= {"load_in_8bit", "llm_int8_threshold"}
        return {name: value for name, value in written.items() if name not in idle}


class Lora(Strict):
    """The low-rank adapter (Hu et al. 2021)."""

    r: Positive = Field(8, description="Rank.")
    alpha: Positive = Field(32, description="Scale: the update is multiplied by alpha / r.")
    dropout: Share = Field(0.05, description="Dropout on the adapter's input.")
    targets: list[str] = Field(min_length=1, description="Module names to adapt; every one must match.")


class Data(Strict):
    """What to learn from."""

    train: str = Field(description="train.jsonl of `koalpaca data prepare` (or any file that it reads).")
    valid: str | None = Field(None, description="valid.jsonl, for the validation loss and the held-out comparison.")
    max_length: Positive = Field(1024, description="Longest example and packed row, in tokens.")
    too_long: Literal["drop", "cut"] = Field("drop", description="Longer examples: left out and counted, or cut.")
    packing: bool = Field(True, description="Several examples in one row, none of which sees another.")


class Training(Strict):
    """The loop. A step is one update of the adapter: batch_size rows on each GPU."""

    gone: ClassVar[Mapping[str, str]] = {
        "accumulation": "A step is training.batch_size rows; how it is cut is planned (engine.micro_tokens).",
        "recompute": "Write engine.recompute.",
    }

    epochs: Annotated[float, Field(gt=0)] | None = Field(None, description="Passes over the data.")
    max_steps: Positive | None = Field(None, description="Steps in place of epochs.")
    batch_size: Positive = Field(8, description="Rows of one step on each GPU.")
    learning_rate: Annotated[float, Field(gt=0.0, le=0.1)] = Field(2e-4, description="Peak rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Rate after the warm-up.")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="Steps from zero to the peak rate.")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(0.0, description="Decoupled weight decay (AdamW).")
    max_grad_norm: Annotated[float, Field(gt=0.0)] = Field(1.0, description="Gradients are clipped to this norm.")
    optimizer: Literal["auto", "adamw", "paged_adamw_8bit"] = Field(
        "auto", description="auto: adamw, torch's fused AdamW. paged_adamw_8bit: bitsandbytes', on CUDA alone."
    )
    log_every: Positive = Field(10, description="Steps between lines of metrics.jsonl.")
    eval_every: Positive | None = Field(None, description="Steps between validation losses; null: only at the end.")
    checkpoint_every: Positive = Field(100, description="Steps between checkpoints.")
    keep_checkpoints: Positive = Field(2, description="Newest checkpoints kept.")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("exactly one of epochs and max_steps says how long to train. | Set one of them.")
        return self


class Engine(Strict):
    """How a step is computed: speed and memory, never what is learned (but for the rounding of `compute: fp8`)."""

    plain_keys: ClassVar[tuple[str, ...]] = ("kind", "micro_tokens", "recompute")

    kind: Literal["auto", "fast", "plain"] = Field(
        "auto",
        description="fast: our own blocks; plain: PEFT, transformers and bitsandbytes as they are; "
        "auto: fast where base and type allow.",
    )
    memory_budget: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="GiB of the card to plan for; null: what it has free, less a margin."
    )
    micro_tokens: Positive | None = Field(
        None, description="Tokens computed at once (no document is cut, at least one); null: planned."
    )
    recompute: Literal["auto", "none", "wide", "blocks", "offload"] = Field(
        "auto",
        description="Computed again in backward: none; wide, the MLP's wide tensor; blocks, whole blocks; "
        "offload, those with their inputs in host memory; auto: planned.",
    )
    cached_blocks: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Blocks whose weights stay dequantised; null: planned."
    )
    attention: Literal["auto", "flash4", "cudnn", "flash", "efficient", "documents"] = Field(
        "auto",
        description="Attention kernel; flash4: the package flash-attn-4, on Hopper or newer; documents: one "
        "document at a time, anywhere; auto: the fastest that is there.",
    )
    kernels: Literal["auto", "triton", "torch"] = Field(
        "auto",
        description="torch: the plain reference of every fused kernel; auto: triton on CUDA, where it is there.",
    )
    compute: Literal["auto", "fp8"] = Field(
        "auto",
        description="fp8: products of the frozen base in 8 bits (e4m3), on Hopper or newer; "
        "auto: in quantization.bnb_4bit_compute_dtype.",
    )
    fold_lora: bool = Field(True, description="LoRA inside the base's matrix product; false: a product of its own.")
    graphs: Literal["auto", "always", "never"] = Field("auto", description="CUDA graphs of small micro-steps.")

    @model_validator(mode="after")
    def _no_idle_keys(self) -> Self:
        idle = [name for name in type(self).model_fields if name in self.model_fields_set - {*self.plain_keys}]
        if self.kind == "plain" and idle:
            raise ValueError(f"with kind: plain, {idle[0]} has no effect. | Remove it, or use the fast engine.")
        if self.kind == "plain" and self.recompute in ("wide", "offload"):
            raise ValueError(
                f"with kind: plain, recompute cannot be {self.recompute}. | Set it to auto, none or blocks."
            )
        return self

    @model_serializer(mode="wrap")
    def _without_idle_keys(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # what is written must be readable again
        written: dict[str, Any] = whole(self)
        return {k: v for k, v in written.items() if self.kind != "plain" or k in self.plain_keys}


class Watch(Strict):
    """What a run does about its own trouble. The notices are named in docs/ko/diagnosis.md."""

    policy: Literal["warn", "stop", "rollback"] = Field(
        "warn",
        description="warn: say so and go on; stop: write a checkpoint and end; rollback: go back to the last good "
        "checkpoint with a lower rate. What is only slow is never stopped.",
    )
    rollback_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="The learning rate after a rollback, as a share of that before it."
    )
    rollbacks: Positive = Field(2, description="Rollbacks of one run; the next trouble stops it.")
    ignore: list[NoticeName] = Field(default_factory=list, description="Notices that are not given.")


class Evaluation(Strict):
    """Defaults of `koalpaca eval` for an adapter of this run."""

    suite: str = Field("ko-mini", description="Suite of tasks judged before and after.")
    max_new_tokens: Positive = Field(96, description="Longest answer written to a held-out question.")
    heldout_limit: Positive = Field(60, description="Held-out questions answered (all are scored).")


class Hub(Strict):
    """Defaults of `koalpaca hub card` and `push`."""

    repo: str | None = Field(None, description="user/name on the Hugging Face Hub.")
    private: bool = Field(True, description="Make the repository private when it is created.")
    license: str | None = Field(None, description="Licence of the adapter, as the Hub spells it.")
    data_licenses: list[str] = Field(default_factory=list, description="Licences of the training data.")


class Recipe(Strict):
    """One run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(description="Name of the run.")
    out: str | None = Field(None, description="Run folder; null: runs/<name>.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(42, description="Seed of every random choice.")
    template: str = Field("koalpaca", description="Prompt template, by name; 'tokenizer' for the base's own.")
    base: Base
    quantization: Quantization = Field(default_factory=Quantization)
    lora: Lora | None = Field(
        description="The section of the adapter, or null: every weight of the base is trained (full fine-tuning)."
    )
    data: Data
    training: Training
    engine: Engine = Field(default_factory=Engine)
    watch: Watch = Field(default_factory=Watch)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    hub: Hub = Field(default_factory=Hub)

    @model_validator(mode="after")
    def _whole_weights(self) -> Self:
        if self.lora is None and (self.quantization.load_in_4bit or self.quantization.load_in_8bit):
            key = "load_in_4bit" if self.quantization.load_in_4bit else "load_in_8bit"
            raise ValueError(
                f"with lora: null every weight is trained, and weights in {key[8]} bits cannot be. "
                f"| Set quantization.{key} to false, or give a lora section."
            )
        return self

    @property
    def full(self) -> bool:
        """Whether all weights are trained, without an adapter."""
        return self.lora is None

    @property
    def output(self) -> str:
        """What the run folder holds in the end: `adapter` or `model`."""
        return "model" if self.lora is None else "adapter"

    @property
    def folder(self) -> str:
        """The run folder."""
        return self.out or f"runs/{self.name}"
