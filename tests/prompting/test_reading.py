"""What is kept of a row's beginning changes no probability: every family, rows of different lengths."""

import pytest
import torch

from tests.prompting.conftest import CaptionerOf
from tests.tiny_captioner import FAMILIES
from wsi_mivpg.captioner import report_logprobs
from wsi_mivpg.prompting.reading import start_reading

PROMPTS = ("What?", "Is there any necrosis?", "A")
WRITTEN = [[10, 11, 12], [20], [30, 31, 32, 33, 34]]
MORE = [[5], [], [6, 7]]
CANDIDATES = [[40, 41], [50], [60, 61, 62, 63]]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_continuations_have_the_probabilities_that_scoring_the_whole_gives(captioner_of: CaptionerOf, family: str):
    captioner = captioner_of(family)
    visual = torch.randn(3, 4, 48, generator=torch.Generator().manual_seed(0)) / 2
    reading = start_reading(captioner, list(visual), [captioner.wording.prompt_ids(prompt) for prompt in PROMPTS])
    reading.append(WRITTEN)
    reading.append(MORE)
    scored = reading.score(CANDIDATES)
    again = reading.rows([2, 0, 0]).score(CANDIDATES)
    for row, prompt in enumerate(PROMPTS):
        before = WRITTEN[row] + MORE[row]
        for place, candidate in enumerate(CANDIDATES):
            whole = report_logprobs(captioner, visual[row : row + 1], before + candidate, prompt)[0]
            torch.testing.assert_close(scored[row][place], whole[len(before) :], rtol=0, atol=3e-5)
    for place in range(len(CANDIDATES)):
        torch.testing.assert_close(again[0][place], scored[2][place], rtol=0, atol=1e-5)
        torch.testing.assert_close(again[2][place], scored[0][place], rtol=0, atol=1e-5)


@torch.no_grad()
def test_rows_taken_twice_go_on_by_themselves(captioner_of: CaptionerOf):
    captioner = captioner_of("llama")
    visual = torch.randn(1, 4, 48, generator=torch.Generator().manual_seed(1))
    reading = start_reading(captioner, list(visual), [captioner.wording.prompt_ids("What?")])
    before = reading.last.clone()
    both = reading.rows([0, 0])
    both.append([[10], [11]])
    assert not torch.equal(both.last[0], both.last[1])
    assert torch.equal(reading.last, before)
    reading.append([[10]])
    torch.testing.assert_close(reading.last[0], both.last[0])
