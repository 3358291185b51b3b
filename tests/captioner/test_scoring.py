"""Scores are the model's own, and its attention is read where it tells each token, in every family."""

from typing import Any

import pytest
import torch

from tests.tiny_captioner import FAMILIES, tiny_config
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, pack, report_attention, report_logprobs
from wsi_mivpg.captioner.sequences import pad_labels
from wsi_mivpg.errors import ModelError

Bases = Any


@pytest.fixture(params=FAMILIES)
def captioner(request: pytest.FixtureRequest, tiny_base_of: Bases) -> SlideCaptioner:
    torch.manual_seed(0)
    return SlideCaptioner.create(tiny_config(tiny_base_of(request.param), trains="lora")).eval()


@torch.no_grad()
def test_logprobs_are_those_of_the_loss_and_attention_is_read_before_its_token(
    captioner: SlideCaptioner, cases: list[CaseBags]
) -> None:
    visual = captioner.visual_prompt(**pack(cases))[0]
    ids = captioner.encode_report("benign")
    logprobs = report_logprobs(captioner, visual, ids)
    loss = captioner(**pack(cases), labels=pad_labels([ids] * len(cases))).loss
    assert float(-logprobs.mean()) == pytest.approx(float(loss), rel=1e-4)

    before = captioner.language_model.config._attn_implementation
    read = report_attention(captioner, visual[0], ids)
    assert captioner.language_model.config._attn_implementation == before
    assert read.shape == (len(ids), captioner.num_visual_tokens)
    assert (read > 0).all()
    assert (read.sum(dim=1) <= 1 + 1e-5).all()
    torch.testing.assert_close(report_attention(captioner, visual[0], ids[:3]), read[:3])
    other = [*ids[:2], ids[2] + 1]  # a token is not read while it is told
    torch.testing.assert_close(report_attention(captioner, visual[0], other), read[:3])
    torch.testing.assert_close(report_logprobs(captioner, visual, ids), logprobs)
    shorter = report_attention(captioner, visual[0], ids, prompt="Why, and where?")
    assert not torch.allclose(shorter, read)


def test_written_tokens_are_scored_as_they_were_when_they_were_written(
    tiny_base_of: Bases, cases: list[CaseBags]
) -> None:
    captioner = SlideCaptioner.create(tiny_config(tiny_base_of("llama"))).eval()
    made = captioner.generate(cases[:1], ["Where?"])[0]
    with torch.no_grad():
        visual = captioner.visual_prompt(**pack(cases[:1]))[0]
        scored = report_logprobs(captioner, visual, made.token_ids, "Where?")[0]
    torch.testing.assert_close(scored, made.token_logprobs, atol=1e-4, rtol=1e-4)


def test_no_token_and_too_many_are_refused(tiny_base_of: Bases) -> None:
    captioner = SlideCaptioner.create(tiny_config(tiny_base_of("opt"), prompt_template=None)).eval()
    visual = torch.zeros(1, 4, 48)
    with pytest.raises(ModelError, match="no token"):
        report_logprobs(captioner, visual, [])
    with pytest.raises(ModelError, match="300 of the report"):
        report_attention(captioner, visual[0], [5] * 300)
