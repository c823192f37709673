"""Every thread that the pages by symptom name has a test here, and every one that has a test is on the pages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from koalpaca_tune.cli.main import cli

HERE = Path(__file__).parent
TOP = HERE.parent.parent
NOTES = TOP.parent / "shared" / "pains.md"
PAGES = ("docs/ko/pains.md", "docs/en/pains.md")

THREADS: dict[str, tuple[str, ...]] = {
    # loss
    "qlora#84": (
        "test_qlora_84_batches_are_never_sorted_by_length",
        "test_qlora_84_a_sawtooth_of_lengths_is_named",
    ),
    "qlora#290": ("test_qlora_290_a_staircase_at_each_epoch_is_memorisation",),
    "qlora#117": ("test_qlora_117_padding_stands_on_the_right_and_is_masked_by_place",),
    "alpaca-lora#391": ("test_alpaca_lora_391_the_broken_optimizer_and_the_rate_are_told_of",),
    **dict.fromkeys(
        ("alpaca-lora#170", "LLaMA-Factory#506"),
        ("test_alpaca_lora_170_llama_factory_506_a_float16_overflow_stops_the_run_and_is_named",),
    ),
    "transformers#34191": (
        "test_transformers_34191_unsloth_8261_the_loss_does_not_depend_on_accumulation",
        "test_transformers_34191_accumulation_asked_of_the_launcher_is_refused",
    ),
    "unsloth#8261": ("test_transformers_34191_unsloth_8261_the_loss_does_not_depend_on_accumulation",),
    "trl#1183": ("test_trl_1183_what_is_learned_goes_by_ids_and_a_template_that_does_not_fit_is_refused",),
    "trl#4879": ("test_trl_4879_nothing_to_learn_is_an_error_not_a_loss",),
    "KoAlpaca blog": ("test_koalpaca_blog_a_sudden_drop_has_a_cause_and_no_improvement_is_said",),
    # trained, nothing improved
    **dict.fromkeys(
        ("KoAlpaca#29", "KULLM#26"), ("test_koalpaca_29_kullm_26_an_answer_is_asked_for_as_it_was_learned",)
    ),
    **dict.fromkeys(
        ("peft#193", "peft#324", "peft#492", "KoAlpaca#13"),
        ("test_peft_193_324_492_koalpaca_13_every_matrix_of_a_neox_adapter_is_alive",),
    ),
    **dict.fromkeys(
        ("alpaca-lora#446", "alpaca-lora#293"),
        ("test_alpaca_lora_446_293_an_adapter_file_of_443_bytes_is_refused",),
    ),
    "open-unlearning#178": (
        "test_open_unlearning_178_axolotl_312_recomputed_blocks_still_learn",
        "test_open_unlearning_178_a_b_matrix_that_does_not_move_stops_the_run",
    ),
    "axolotl#312": ("test_open_unlearning_178_axolotl_312_recomputed_blocks_still_learn",),
    "transformers#26098": ("test_transformers_26098_a_frozen_matrix_is_found_before_the_run",),
    **dict.fromkeys(
        ("peft#793", "LLaMA-Factory#8242"),
        ("test_peft_793_llama_factory_8242_the_tuned_model_is_not_the_base",),
    ),
    # configuration
    "bnb_4bit_use_double_quany": ("test_blog_a_misspelt_quantisation_key_is_refused_at_its_line",),
    "BitsAndBytesConfig tutorial": ("test_tutorial_a_quantisation_config_that_is_never_passed_is_noticed",),
    "transformers#35581": ("test_transformers_35581_what_is_asked_of_quantisation_is_read_back_from_the_weights",),
    "KULLM#10": (
        "test_kullm_10_a_setting_that_would_have_no_effect_is_refused",
        "test_kullm_10_a_flag_of_the_launcher_that_the_recipe_overrules_is_refused",
    ),
    "axolotl, TRL": (
        "test_axolotl_trl_unknown_keys_are_errors_at_every_depth",
        "test_axolotl_trl_names_of_other_trainers_lead_to_keys_that_there_are",
        "test_axolotl_trl_what_is_computed_is_what_the_recipe_says",
    ),
    # ends, templates
    **dict.fromkeys(
        ("trl#1623", "trl#2059", "trl#734"),
        (
            "test_trl_1623_2059_734_the_end_is_learned_where_it_pads_too",
            "test_trl_1623_2059_734_training_makes_the_end_likelier",
        ),
    ),
    "alignment-handbook#127": ("test_alignment_handbook_127_trl_1400_bos_stands_once",),
    "trl#1400": (
        "test_alignment_handbook_127_trl_1400_bos_stands_once",
        "test_trl_1400_a_bos_that_the_data_bring_along_is_told_of",
    ),
    **dict.fromkeys(
        ("unsloth#416", "unsloth#419"), ("test_unsloth_416_419_no_pad_token_is_needed_and_none_is_added",)
    ),
    "llama-cookbook#640": ("test_llama_cookbook_640_both_ends_stop_an_answer",),
    **dict.fromkeys(
        ("KoAlpaca#50", "KoAlpaca#91", "KoAlpaca#31", "KoAlpaca#8"),
        ("test_koalpaca_50_91_31_8_the_format_is_written_down_and_used",),
    ),
    "komt": ("test_komt_training_and_answering_read_the_same_text",),
    "ms-swift#2187": ("test_ms_swift_2187_answers_alone_are_learned",),
    # slow
    **dict.fromkeys(
        ("KoAlpaca#62", "KoAlpaca#51", "KoAlpaca#73", "KoAlpaca#34"),
        ("test_koalpaca_62_51_73_34_a_model_in_training_writes_with_its_cache",),
    ),
    **dict.fromkeys(
        ("bitsandbytes#611", "bitsandbytes#490"), ("test_bitsandbytes_611_490_a_merged_model_is_plain",)
    ),
    # resume, merge, push
    **dict.fromkeys(
        ("transformers#29383", "peft#859"),
        ("test_transformers_29383_peft_859_a_resumed_run_trains_what_the_first_did",),
    ),
    **dict.fromkeys(
        ("peft#2321", "peft#2105", "peft#1043"), ("test_peft_2321_2105_1043_merged_is_base_with_adapter",)
    ),
    "unsloth#869": ("test_unsloth_869_merged_is_not_the_base",),
    "transformers#33922": ("test_transformers_33922_an_adapter_of_a_local_base_is_not_pushed",),
    "vllm#9280": ("test_vllm_9280_an_adapter_holds_lora_matrices_and_nothing_else",),
    "vLLM GPT-NeoX": ("test_vllm_neox_the_card_says_that_the_adapter_must_be_merged",),
    "ollama#6823": ("test_ollama_6823_a_merged_model_knows_its_template",),
    **dict.fromkeys(
        ("KoAlpaca#97", "KoAlpaca#14", "KULLM#13"),
        ("test_koalpaca_97_14_kullm_13_the_card_says_what_the_data_allow",),
    ),
    # GPT-NeoX
    "KoAlpaca#7": ("test_koalpaca_7_token_type_ids_never_reach_the_model",),
    **dict.fromkeys(
        ("transformers#17452", "FasterTransformer#602"),
        ("test_transformers_17452_fastertransformer_602_attention_scores_do_not_overflow_float16",),
    ),
    "query_key_value": ("test_neox_query_key_value_is_read_head_by_head",),
    "embed_in": ("test_neox_names_are_its_own",),
    "fan_in_fan_out": ("test_axolotl_fan_in_fan_out_is_false_for_linear_layers",),
    **dict.fromkeys(
        ("KoAlpaca#20", "KoAlpaca#67"),
        ("test_koalpaca_20_67_what_does_not_fit_is_said_before_anything_is_loaded",),
    ),
    # several GPUs
    "qlora#96": ("test_qlora_96_cards_that_nobody_uses_are_told_of",),
    "axolotl#3839": ("test_axolotl_3839_one_process_is_not_wrapped_and_several_share_each_step",),
    **dict.fromkeys(
        ("bitsandbytes#1092", "transformers#24395"),
        ("test_bitsandbytes_1092_transformers_24395_sharding_of_a_4bit_base_is_refused",),
    ),
    # Korean
    "NFD": ("test_nfd_text_is_composed_and_costs_half_the_tokens",),
    "cp949": ("test_cp949_csv_is_read_as_what_it_is",),
    "jieba": ("test_jieba_korean_rouge_counts_morphemes_not_syllables",),
    "KoBEST WiC": ("test_kobest_wic_the_particle_fits_the_word",),
    "홀수 중 하나": ("test_translated_rows_that_machines_damaged_are_counted",),
    "KoAlpaca#23": ("test_koalpaca_23_one_speech_level_can_be_kept",),
    "overlapping sets": ("test_overlapping_translated_sets_are_taken_once",),
    "transformers#22664": ("test_transformers_22664_a_stream_shows_whole_syllables",),
    "NSMC": (
        "test_koalpaca_nsmc_examples_carry_their_own_labels",
        "test_koalpaca_nsmc_prompts_are_held_against_another_harness",
    ),
}
"""Thread, as the pages write it -> tests of its symptom. Pull requests are written like issues."""


def named_tests() -> set[str]:
    found: set[str] = set()
    for file in HERE.glob("test_pains_*.py"):
        if file.name != Path(__file__).name:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found |= {
                node.name
                for node in tree.body
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            }
    return found


def test_every_thread_has_its_tests_and_every_test_its_thread() -> None:
    assert {name for names in THREADS.values() for name in names} == named_tests()


def test_a_test_is_named_after_its_thread() -> None:
    unlike = []
    for thread, names in THREADS.items():
        repository, _, number = thread.lower().replace("-", "_").partition("#")
        if number:
            unlike += [name for name in names if repository not in name or f"_{number}_" not in name]
    assert unlike == []


@pytest.mark.parametrize("page", PAGES)
def test_the_page_by_symptom_names_every_thread_and_no_other(page: str) -> None:
    text = (TOP / page).read_text(encoding="utf-8")
    assert [thread for thread in THREADS if not re.search(rf"{re.escape(thread)}(?![0-9])", text)] == []
    assert set(re.findall(r"[A-Za-z][\w-]*#[0-9]+", text)) - set(THREADS) == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_keys_and_codes_of_the_page_exist(page: str) -> None:
    text = (TOP / page).read_text(encoding="utf-8")
    called = {
        tuple(words.split()[:2])
        for words in re.findall(r"(?:`|^)koalpaca ([a-z]+(?: [a-z]+)?)", text, re.MULTILINE)
    }
    for first, *second in called:
        command = cli.commands.get(first)
        assert command is not None, first
        inner = getattr(command, "commands", None)
        assert inner is None or (second and second[0] in inner), f"{first} {second}"
    explained = (TOP / page).with_name("errors.md").read_text(encoding="utf-8")
    codes = set(re.findall(r"errors\.md#([a-z0-9-]+)", text))
    assert codes
    assert [code for code in sorted(codes) if f"\n## {code}\n" not in explained] == []


def test_threads_of_the_notes_are_all_here() -> None:
    if not NOTES.is_file():
        pytest.skip("no ../shared/pains.md beside this checkout")
    text = NOTES.read_text(encoding="utf-8").split("## Loss drops", 1)[1].replace(" PR#", "#")
    told = [
        f"{repository}#{number}"
        for repository, numbers in re.findall(r"([A-Za-z][\w-]*)((?:#\d+(?:, (?=#))?)+)", text)
        for number in re.findall(r"#(\d+)", numbers)
    ]
    assert len(told) > 50
    assert [thread for thread in told if thread not in THREADS] == []
