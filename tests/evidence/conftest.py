"""A tiny captioner that has learned, in seconds, to say what few of a bag's instances show; the others are noise."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from tests.one_thread import one_thread
from tests.tiny_captioner import MIVPG, tiny_base, tiny_config
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, in_memory, pack
from wsi_mivpg.captioner.sequences import pad_labels

__all__ = ["one_thread"]

COUNT, WIDTH, STEPS = 40, 12, 300
WORDS = ("benign", "necrosis")
"""What a report says: the second word the more often, the more instances speak for it and the fewer against it."""


@dataclass(frozen=True, eq=False)
class Known:
    """A case of which it is known what matters: the instances for and against the second word; the others are noise."""

    case: CaseBags
    speak_for: list[int]
    speak_against: list[int]


DrawCase = Callable[..., Known]


@pytest.fixture(scope="session")
def draw_case() -> DrawCase:
    """Return what draws a case, in a grid of 8 columns, by seed and numbers of instances for and against."""

    def draw(seed: int, count_for: int, count_against: int, count: int = COUNT) -> Known:
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(count, WIDTH, generator=generator)
        features[:, :2] *= 0.1
        order = torch.randperm(count, generator=generator)
        speak_for, speak_against = order[:count_for], order[count_for : count_for + count_against]
        features[speak_for, 0], features[speak_against, 1] = 4.0, 4.0
        place = torch.arange(count)
        cells = torch.stack([place % 8, place // 8, torch.zeros_like(place)], dim=1)
        return Known(in_memory(f"case-{seed}", features, cells=cells), speak_for.tolist(), speak_against.tolist())

    return draw


@pytest.fixture(scope="session")
def taught(draw_case: DrawCase) -> SlideCaptioner:
    """A captioner that tells the two kinds of bags apart."""
    torch.manual_seed(0)
    config = tiny_config("unused", trains="full", mivpg=MIVPG, prompt="?", prompt_template="{prompt}")
    captioner = SlideCaptioner(config, *tiny_base()).train()
    optimizer = torch.optim.AdamW(captioner.parameters(), lr=2e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        drawn, words = [], []
        for place in range(8):
            count_for, count_against = torch.randint(9, (2,), generator=generator).tolist()
            drawn.append(draw_case(1000 + 8 * step + place, count_for, count_against).case)
            likely = torch.sigmoid(torch.tensor(0.5 * (count_for - count_against)))
            words.append(WORDS[int(torch.rand((), generator=generator) < likely)])
        loss = captioner(**pack(drawn), labels=pad_labels([captioner.encode_report(word) for word in words])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return captioner.eval()
