"""Prompts and reports become the tokens that each family of language models was taught with."""

from typing import Any

import pytest

from tests.tiny_captioner import CHATML, END, SPECIALS, START, VOCABULARY, tiny_tokenizer
from wsi_mivpg.captioner.sequences import Wording, chat_template
from wsi_mivpg.errors import ModelError


def _wording(family: str = "llama", template: str | None = None, **changes: Any) -> Wording:
    settings = {"encoder_decoder": family == "flan-t5", "end_id": END, "vocabulary": VOCABULARY}
    return Wording(tiny_tokenizer(family), template, **{**settings, **changes})


def _text(wording: Wording, ids: list[int]) -> str:
    return str(wording.tokenizer.decode(ids, skip_special_tokens=False))


def test_a_report_ends_with_the_end_token() -> None:
    for family in ("llama", "opt", "flan-t5"):
        ids = _wording(family).report_ids(" benign \n")
        assert ids[-1] == END
        assert END not in ids[:-1]
        assert START not in ids


def test_a_long_report_is_not_cut() -> None:
    for family in ("llama", "flan-t5"):
        report = "tissue " * 300 + "end"
        wording = _wording(family, CHATML)
        assert _text(wording, wording.report_ids(report)) == f"{report}<|im_end|>"


def test_a_report_after_a_bare_prompt_goes_on_from_its_last_word() -> None:
    wording = _wording("opt")
    assert _text(wording, wording.prompt_ids("a photo of ") + wording.report_ids("tissue")) == (
        f"{SPECIALS[START]}a photo of tissue{SPECIALS[END]}"
    )


def test_an_encoder_reads_the_prompts_end_and_its_decoder_begins_with_the_report() -> None:
    wording = _wording("flan-t5")
    assert _text(wording, wording.prompt_ids("a photo of")) == f"a photo of{SPECIALS[END]}"
    assert _text(wording, wording.report_ids("tissue")) == f"tissue{SPECIALS[END]}"
    assert _text(wording, wording.prompt_ids("")) == SPECIALS[END]


def test_a_template_is_taken_literally_before_a_decoder() -> None:
    wording = _wording("opt", CHATML)
    assert _text(wording, wording.prompt_ids("What? {x}")) == (
        "<|im_start|>user\nWhat? {x}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert _text(wording, wording.report_ids("benign")) == "benign<|im_end|>"


def test_a_decoders_prompt_does_not_end_where_the_report_should_begin() -> None:
    ids = _wording("flan-t5", encoder_decoder=False).prompt_ids("What?")
    assert ids[-1] != END
    assert len(ids) == 5


def test_an_own_end_token_ends_reports() -> None:
    newline = int(tiny_tokenizer()("\n")["input_ids"][0])
    assert _wording("opt", end_id=newline).report_ids("benign")[-1] == newline


def test_a_tokenizer_that_knows_more_than_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"token 9\d.*knows 50 tokens"):
        _wording(vocabulary=50).prompt_ids("z")


def test_the_tokenizers_chat_template_is_written_out() -> None:
    assert chat_template(tiny_tokenizer(chat=True)) == CHATML
    assert chat_template(tiny_tokenizer()) is None


def test_a_chat_template_that_tells_the_day_tells_the_same_every_day_and_does_not_think() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%H:%M:%S') %}{% endif %}"
        "{{ date_string }} {{ messages[0]['content'] }}{% if enable_thinking is not false %}<think>{% endif %}"
    )
    assert chat_template(tokenizer) == "26 Jul 2024 {prompt}"


def test_a_chat_template_without_the_users_text_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "hello"
    with pytest.raises(ModelError, match="set prompt_template"):
        chat_template(tokenizer)
