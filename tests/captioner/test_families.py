"""Every family of language models reads a visual prompt, is taught the report alone, and writes it in any batch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.tiny_captioner import DECODERS, ENCODER_DECODERS, END, FAMILIES, REPORTS, tiny_config
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, pack
from wsi_mivpg.captioner.sequences import IGNORED, pad_labels

Bases = Callable[[str], Path]
PROMPTS = ["What?", "Is there necrosis in it?", "Why"]


@pytest.fixture(params=FAMILIES)
def captioner(request: pytest.FixtureRequest, tiny_base_of: Bases) -> SlideCaptioner:
    torch.manual_seed(0)
    config = tiny_config(tiny_base_of(request.param), trains="adapter", prompt_template=None)
    return SlideCaptioner.create(config).eval()


def _loss(captioner: SlideCaptioner, cases: Sequence[CaseBags], reports: Sequence[str]) -> torch.Tensor:
    return captioner(**pack(cases), labels=pad_labels([captioner.encode_report(text) for text in reports])).loss


def _by_hand(captioner: SlideCaptioner, case: CaseBags, ids: list[int]) -> torch.Tensor:
    """Log-probabilities (T,) of a report's tokens, from one row and no masks but the causal one."""
    model = captioner.language_model
    tokens = model.get_input_embeddings()
    visual = captioner.visual_prompt(**pack([case]))[0]
    read = torch.cat([visual, tokens(torch.tensor([captioner.prompt_ids]))], dim=1)
    report = torch.tensor([ids])
    if captioner.wording.encoder_decoder:
        start = torch.tensor([[model.config.decoder_start_token_id, *ids[:-1]]])
        logits = model(inputs_embeds=read, decoder_input_ids=start).logits[0]
    else:
        logits = model(inputs_embeds=torch.cat([read, tokens(report)], dim=1)).logits[0, read.shape[1] - 1 : -1]
    return logits.log_softmax(dim=-1).gather(1, report.T)[:, 0]


@torch.no_grad()
def test_the_loss_is_that_of_the_report_tokens_alone(captioner: SlideCaptioner, cases: list[CaseBags]) -> None:
    ids = [captioner.encode_report(text) for text in REPORTS]
    by_hand = torch.cat([_by_hand(captioner, case, report) for case, report in zip(cases, ids, strict=True)])
    torch.testing.assert_close(_loss(captioner, cases, REPORTS), -by_hand.mean(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_loss_of_a_batch_is_that_of_its_cases_weighted_by_their_tokens(
    captioner: SlideCaptioner, cases: list[CaseBags]
) -> None:
    counts = torch.tensor([len(captioner.encode_report(text)) for text in REPORTS])
    alone = torch.stack([_loss(captioner, [case], [text]) for case, text in zip(cases, REPORTS, strict=True)])
    expected = (alone * counts).sum() / counts.sum()
    torch.testing.assert_close(_loss(captioner, cases, REPORTS), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_stands_after_a_report_has_no_influence(captioner: SlideCaptioner, cases: list[CaseBags]) -> None:
    labels = pad_labels([captioner.encode_report("benign")])
    longer = torch.cat([labels, torch.full((1, 5), IGNORED)], dim=1)
    packed = pack(cases[:1])
    one, two = captioner(**packed, labels=labels), captioner(**packed, labels=longer)
    torch.testing.assert_close(one.loss, two.loss)
    assert one.logits.shape == (*labels.shape, captioner.language_model.config.vocab_size)


@torch.no_grad()
def test_the_case_matters_to_the_loss(captioner: SlideCaptioner, cases: list[CaseBags]) -> None:
    assert _loss(captioner, cases[:1], ["benign"]) != _loss(captioner, cases[1:2], ["benign"])


@torch.no_grad()
def test_visual_tokens_start_as_long_as_embedded_tokens(captioner: SlideCaptioner, cases: list[CaseBags]) -> None:
    visual = captioner.visual_prompt(**pack(cases))[0]
    tokens = captioner.language_model.get_input_embeddings()(torch.arange(captioner.wording.vocabulary))
    assert float(visual.norm(dim=-1).mean()) == pytest.approx(float(tokens.norm(dim=-1).mean()), rel=0.3)


def test_only_adapter_and_projection_get_gradients(captioner: SlideCaptioner, cases: list[CaseBags]) -> None:
    captioner.train()
    _loss(captioner, cases, REPORTS).backward()
    for name, parameter in captioner.named_parameters():
        if name.startswith("language_model."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
    assert captioner.mivpg.training
    assert not any(module.training for module in captioner.language_model.modules())


def test_rows_of_a_batch_are_what_they_are_alone_also_where_prompts_differ_in_length(
    captioner: SlideCaptioner, cases: list[CaseBags]
) -> None:
    together = captioner.generate(cases, PROMPTS, batch_size=7)
    assert [(one.case_id, one.prompt) for one in together] == [(case.case_id, p) for case in cases for p in PROMPTS]
    for one in together:
        case = next(case for case in cases if case.case_id == one.case_id)
        (alone,) = captioner.generate([case], [one.prompt])
        assert alone.token_ids == one.token_ids
        torch.testing.assert_close(alone.token_logprobs, one.token_logprobs, atol=1e-4, rtol=1e-4)
    assert len({one.token_ids for one in together}) > 1


@torch.no_grad()
def test_logprobs_are_those_that_the_loss_is_made_of(captioner: SlideCaptioner, cases: list[CaseBags]) -> None:
    for one, case in zip(captioner.generate(cases), cases, strict=True):
        expected = _by_hand(captioner, case, list(one.token_ids))
        torch.testing.assert_close(one.token_logprobs, expected, atol=1e-4, rtol=1e-4)
        assert one.mean_logprob == pytest.approx(float(expected.mean()), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "opt", "gemma2", "flan-t5"])
def test_reports_are_learned_by_heart(family: str, tiny_base_of: Bases, cases: list[CaseBags]) -> None:
    captioner = learned(tiny_base_of(family), cases)
    together = captioner.generate(cases)
    assert [one.text for one in together] == REPORTS
    assert all(one.token_ids[-1] == END and not one.flags and not one.hit_length_limit for one in together)
    assert all(-0.5 < one.mean_logprob < 0 for one in together)


def learned(base: Path, cases: Sequence[CaseBags]) -> SlideCaptioner:
    """Return a captioner that knows `REPORTS` by heart."""
    torch.manual_seed(0)
    captioner = SlideCaptioner.create(tiny_config(base, trains="full", prompt_template=None)).train()
    optimiser = torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(400):
        optimiser.zero_grad()
        loss = _loss(captioner, cases, REPORTS)
        loss.backward()
        optimiser.step()
        if loss < 0.005:
            break
    return captioner.eval()


def test_each_family_is_of_its_kind(tiny_base_of: Bases) -> None:
    for family in ("llama", "flan-t5"):
        captioner = SlideCaptioner.create(tiny_config(tiny_base_of(family)))
        assert captioner.wording.encoder_decoder == (family in ENCODER_DECODERS)
        assert captioner.wording.encoder_decoder != (family in DECODERS)


def test_flan_t5_keeps_its_gate_and_its_own_unscaled_head(tiny_base_of: Bases) -> None:
    model = SlideCaptioner.create(tiny_config(tiny_base_of("flan-t5"))).language_model
    assert model.config.is_gated_act
    assert not model.config.scale_decoder_outputs
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
