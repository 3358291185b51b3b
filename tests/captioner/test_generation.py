"""Reports are written as asked: lengths, samples, beams, penalties, streams; and what is wrong with one is said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, TextStreamer

from tests.captioner.test_families import learned
from tests.tiny_captioner import END, REPORTS, tiny_base, tiny_config
from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.captioner.decoding import Draw
from wsi_mivpg.captioner.generated import repeats
from wsi_mivpg.errors import ModelError

Bases = Callable[[str], Path]
BOTH = pytest.mark.parametrize("family", ["llama", "flan-t5"])


@pytest.fixture(scope="module")
def random_of(tiny_base_of: Bases) -> Callable[[str], SlideCaptioner]:
    """Return untrained captioners, one of each family: they never come to an end."""
    made: dict[str, SlideCaptioner] = {}

    def captioner_of(family: str) -> SlideCaptioner:
        if family not in made:
            torch.manual_seed(0)
            config = tiny_config(tiny_base_of(family), trains="adapter", prompt_template=None)
            made[family] = SlideCaptioner.create(config).eval()
        return made[family]

    return captioner_of


@BOTH
def test_the_limits_count_written_tokens_and_not_the_prompts(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags], family: str
) -> None:
    captioner = random_of(family)
    for limit in (1, 7, 40):
        (one,) = captioner.generate(cases[:1], max_new_tokens=limit, min_new_tokens=limit)
        assert len(one.token_ids) == len(one.token_logprobs) == limit


@BOTH
def test_a_report_that_would_end_goes_on_to_its_least_length(
    tiny_base_of: Bases, cases: list[CaseBags], family: str
) -> None:
    captioner = learned(tiny_base_of(family), cases)
    ended, held = (captioner.generate(cases[:1], min_new_tokens=least)[0] for least in (0, 12))
    assert ended.text == "benign"
    assert list(ended.token_ids) == captioner.encode_report("benign")
    assert len(held.token_ids) >= 12
    assert END not in held.token_ids[:11]


def test_a_cut_report_says_so(tiny_base_of: Bases, cases: list[CaseBags]) -> None:
    cut = learned(tiny_base_of("llama"), cases).generate(cases[:1], max_new_tokens=4)[0]
    assert cut.text == "ben"
    assert cut.hit_length_limit
    assert cut.flags == ("runaway",)


def test_an_empty_report_is_flagged(random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags]) -> None:
    captioner = random_of("llama")
    ends = [[token] for token in range(captioner.wording.vocabulary) if token != END]
    one = captioner.generate(cases[:1], bad_words_ids=ends)[0]
    assert one.text == ""
    assert one.token_ids == (END,)
    assert one.flags == ("empty",)


def test_words_three_times_on_end_are_flagged() -> None:
    once = list(range(40))
    assert not repeats(once)
    assert repeats(once + [1, 2, 3, 4] * 3 + once)
    assert not repeats(once + [1, 2, 3, 4] * 2 + once)
    assert repeats(once + [7] * 12)
    assert not repeats(once + [7] * 5)
    assert repeats(once * 3)
    assert not repeats([])


def test_a_repetition_is_flagged_in_a_report_and_a_guard_prevents_it(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags]
) -> None:
    captioner = random_of("flan-t5")
    settings = {"max_new_tokens": 60, "min_new_tokens": 60}
    free = captioner.generate(cases, **settings)
    guarded = captioner.generate(cases, no_repeat_ngram_size=3, **settings)
    assert any("repetition" in one.flags for one in free)
    assert not any("repetition" in one.flags for one in guarded)
    for one in guarded:
        grams = [one.token_ids[place : place + 3] for place in range(len(one.token_ids) - 2)]
        assert len(set(grams)) == len(grams)


@BOTH
@pytest.mark.parametrize("guard", [{"repetition_penalty": 3.0}, {"no_repeat_ngram_size": 2}, {"num_beams": 3}])
def test_guards_and_beams_write_the_same_in_a_padded_batch_and_alone(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags], family: str, guard: dict[str, float]
) -> None:
    captioner, prompts = random_of(family), ["What?", "Is there any necrosis to be seen in it?"]
    together = captioner.generate(cases, prompts, batch_size=8, **guard)
    alone = [captioner.generate([case], [prompt], **guard)[0] for case in cases for prompt in prompts]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    plain = captioner.generate(cases, prompts)
    assert [one.token_ids for one in together] != [one.token_ids for one in plain]


@BOTH
def test_beams_find_likelier_reports(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags], family: str
) -> None:
    settings = {"max_new_tokens": 8, "min_new_tokens": 8}
    greedy, beams = (random_of(family).generate(cases, num_beams=n, **settings) for n in (1, 5))
    totals = [[float(one.token_logprobs.sum()) for one in made] for made in (greedy, beams)]
    assert all(beam >= single - 1e-4 for single, beam in zip(*totals, strict=True))
    assert sum(totals[1]) > sum(totals[0])


@BOTH
def test_a_seed_draws_the_same_samples_in_any_batch_and_order(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags], family: str
) -> None:
    captioner = random_of(family)
    settings = {"do_sample": True, "temperature": 0.9, "top_p": 0.95, "max_new_tokens": 12}
    together = captioner.generate(cases, ["What?", "Why now?"], samples=3, seed=1, batch_size=5, **settings)
    keys = [(one.case_id, one.prompt, one.sample) for one in together]
    assert keys == [(c.case_id, p, n) for c in cases for p in ("What?", "Why now?") for n in range(3)]
    texts = dict(zip(keys, (one.token_ids for one in together), strict=True))
    for case in reversed(cases):
        for one in captioner.generate([case], ["Why now?"], samples=3, seed=1, batch_size=1, **settings):
            assert texts[one.case_id, one.prompt, one.sample] == one.token_ids
    assert len(set(texts.values())) > 18
    other = captioner.generate(cases, ["What?", "Why now?"], samples=3, seed=2, **settings)
    assert [one.token_ids for one in other] != [one.token_ids for one in together]


def test_without_a_seed_torchs_decides(random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags]) -> None:
    captioner, texts = random_of("llama"), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append([one.token_ids for one in captioner.generate(cases, do_sample=True)])
    assert texts[0] == texts[1] != texts[2]


def test_draws_have_the_probabilities_of_the_scores() -> None:
    chances = torch.tensor([0.5, 0.0, 0.2, 0.3])
    rows = 4000
    drawn = Draw(range(rows))(torch.zeros(rows, 0), chances.log().expand(rows, -1))
    assert (drawn.exp().sum(dim=1) == 1).all()
    assert drawn.exp().mean(dim=0).tolist() == pytest.approx(chances.tolist(), abs=0.03)
    assert drawn[:, 1].isneginf().all()


def test_a_cold_or_narrow_draw_is_the_greedy_choice(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags]
) -> None:
    captioner = random_of("llama")
    greedy = [one.token_ids for one in captioner.generate(cases)]
    for settings in ({"top_k": 1}, {"temperature": 1e-4}, {"top_p": 1e-6}, {"min_p": 0.999}):
        drawn = captioner.generate(cases, do_sample=True, seed=0, **settings)
        assert [one.token_ids for one in drawn] == greedy, settings


def test_visual_prompts_are_made_once_per_case(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags]
) -> None:
    captioner, seen = random_of("llama"), []
    hook = captioner.mivpg.register_forward_hook(lambda *_: seen.append(1))
    captioner.generate(cases, ["What?", "Why?"], samples=2, do_sample=True, batch_size=3, max_new_tokens=2)
    hook.remove()
    assert len(seen) == len(cases)


def test_a_stream_shows_the_report_as_it_is_written(
    tiny_base_of: Bases, cases: list[CaseBags], capsys: pytest.CaptureFixture[str]
) -> None:
    captioner = learned(tiny_base_of("flan-t5"), cases)
    streamer = TextStreamer(captioner.tokenizer, skip_prompt=True, skip_special_tokens=True)
    made = captioner.generate(cases, streamer=streamer)
    assert [one.text for one in made] == REPORTS
    assert capsys.readouterr().out.splitlines() == REPORTS
    with pytest.raises(ModelError, match="beam"):
        captioner.generate(cases, streamer=streamer, num_beams=2)


def test_the_bases_own_generation_config_does_not_choose_words(cases: list[CaseBags]) -> None:
    texts = []
    for unasked in ({}, {"do_sample": True, "repetition_penalty": 3.0, "temperature": 9.0, "min_length": 40}):
        model, tokenizer = tiny_base()
        model.generation_config = GenerationConfig(eos_token_id=END, **unasked)
        torch.manual_seed(0)
        config = tiny_config(Path("base"), trains="adapter")
        texts.append([one.token_ids for one in SlideCaptioner(config, model, tokenizer).eval().generate(cases)])
    assert texts[0] == texts[1]


def test_a_special_token_that_the_base_ends_its_turns_with_ends_a_report(cases: list[CaseBags]) -> None:
    for token, ends in ((1, True), (40, False)):
        model, tokenizer = tiny_base()
        model.generation_config = GenerationConfig(eos_token_id=[END, token])
        captioner = SlideCaptioner(tiny_config(Path("base"), trains="adapter"), model, tokenizer).eval()
        allowed = [[other] for other in range(captioner.wording.vocabulary) if other != token]
        one = captioner.generate(cases[:1], bad_words_ids=allowed)[0]
        assert (one.token_ids == (token,)) == ends


def test_the_models_configuration_says_how_it_writes_unless_the_caller_does(
    tiny_base_of: Bases, cases: list[CaseBags]
) -> None:
    torch.manual_seed(0)
    config = tiny_config(tiny_base_of("llama"), generation={"min_new_tokens": 9, "max_new_tokens": 9})
    captioner = SlideCaptioner.create(config).eval()
    assert len(captioner.generate(cases[:1])[0].token_ids) == 9
    assert len(captioner.generate(cases[:1], min_new_tokens=5, max_new_tokens=5)[0].token_ids) == 5


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"max_length": 30}, "give max_new_tokens instead of max_length"),
        ({"min_length": 30}, "give min_new_tokens instead of min_length"),
        ({"num_return_sequences": 2}, "give samples instead"),
        ({"num_beam": 2}, "'num_beam' is unknown; did you mean 'num_beams'"),
        ({"samples": 2}, "2 samples of a case would all be the same"),
        ({"samples": 0}, "must be at least 1"),
        ({"do_sample": True, "num_beams": 2}, "choose one of them"),
        ({"do_sample": True, "temperature": 0.0}, "temperature"),
        ({"do_sample": True, "eta_cutoff": 0.1}, "eta_cutoff is not supported"),
        ({"repetition_penalty": -1.0}, "repetition_penalty"),
        ({"max_new_tokens": 10_000}, r"4 visual tokens, \d+ of the prompt and 10000 of the report are more than"),
        ({"stop_strings": ["x"]}, "stop"),
        ({"eos_token_id": 5}, "eos_token_id belongs to the model"),
    ],
)
def test_what_cannot_be_done_is_said(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags], settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        random_of("llama").generate(cases, **settings)  # type: ignore[arg-type]


def test_generation_needs_evaluation_mode(tiny_base_of: Bases, cases: list[CaseBags]) -> None:
    with pytest.raises(ModelError, match=r"\.eval\(\)"):
        SlideCaptioner.create(tiny_config(tiny_base_of("llama"))).train().generate(cases)


def test_no_case_gives_no_report(random_of: Callable[[str], SlideCaptioner]) -> None:
    assert random_of("llama").generate([]) == []


@BOTH
@pytest.mark.parametrize("decoding", [{}, {"do_sample": True}, {"num_beams": 2}])
def test_nan_is_an_error_that_names_the_case(
    tiny_base_of: Bases, cases: list[CaseBags], family: str, decoding: dict[str, object]
) -> None:
    captioner = SlideCaptioner.create(tiny_config(tiny_base_of(family), trains="adapter")).eval()
    with torch.no_grad():
        captioner.language_projection.bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="case 'c': the language model computes NaN"):
        captioner.generate(cases[2:], **decoding)  # type: ignore[arg-type]


def test_nan_in_one_case_of_a_batch_names_that_case(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags]
) -> None:
    captioner, calls = random_of("llama"), []

    def spoil(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return output * (torch.nan if len(calls) == 3 else 1)

    hook = captioner.language_projection.register_forward_hook(spoil)
    with pytest.raises(ModelError, match="case 'c'"):
        captioner.generate(cases, num_beams=2)
    hook.remove()


def test_a_damaged_case_is_named(random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags]) -> None:
    broken = CaseBags("x", torch.full((3, 12), torch.inf), (3,))
    with pytest.raises(ModelError, match=r"case 'x': .*NaN or infinity"):
        random_of("llama").generate([cases[0], broken])
    with pytest.raises(ModelError, match=r"case 'y': .*reads \(M, 12\)"):
        random_of("llama").generate([CaseBags("y", torch.zeros(3, 5), (3,))])


def test_attention_is_over_the_instances_and_sums_to_one(
    random_of: Callable[[str], SlideCaptioner], cases: list[CaseBags]
) -> None:
    for one, case in zip(random_of("llama").generate(cases), cases, strict=True):
        assert one.attention.shape == (len(case),)
        assert one.attention.dtype == torch.float32
        assert float(one.attention.sum()) == pytest.approx(1, abs=1e-5)


def test_generation_leaves_no_trace_in_training(tiny_base_of: Bases, cases: list[CaseBags]) -> None:
    captioner = SlideCaptioner.create(tiny_config(tiny_base_of("llama"))).eval()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    before = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    captioner.generate(cases, do_sample=True, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    assert all(torch.equal(tensor, before[name]) for name, tensor in captioner.state_dict().items())
    assert not any(tensor.is_inference() for tensor in captioner.state_dict().values())
