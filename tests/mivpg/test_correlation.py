"""A task that no pooling of single instances solves: the label needs a pair.

Every bag holds one probe and several candidates with codes of their own; it is positive if a candidate has the probe's
code. Codes are new in every bag, so that no query can know them: instances must be compared.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_mivpg.mivpg import MivpgConfig, MivpgModel

CODE, CANDIDATES, BATCH, STEPS = 4, 4, 32, 1000
DIM = CODE + 2


def _bags(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(count, 1 + CANDIDATES, DIM) instances, the probe anywhere among them, and (count,) labels 0 or 1."""
    labels = torch.randint(0, 2, (count,), generator=generator).float()
    codes = torch.randn(count, 1 + CANDIDATES, CODE, generator=generator).sign()
    # no candidate equals the probe by chance: each differs in a random place at least
    place = torch.randint(0, CODE, (count, CANDIDATES, 1), generator=generator)
    codes[:, 1:].scatter_(2, place, -codes[:, :1].expand(-1, CANDIDATES, -1).gather(2, place))
    codes[:, 1] = torch.where(labels[:, None] > 0, codes[:, 0], codes[:, 1])
    kinds = torch.zeros(count, 1 + CANDIDATES, 2)
    kinds[:, 0, 0] = kinds[:, 1:, 1] = 1
    bags = torch.cat([codes, kinds], dim=2)
    order = torch.rand(count, 1 + CANDIDATES, generator=generator).argsort(dim=1)
    return bags.gather(1, order[..., None].expand(-1, -1, DIM)), labels


class _Abmil(nn.Module):
    """Gated attention pooling (Ilse et al., 2018) of embedded instances."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(DIM, 64), nn.ReLU())
        self.tanh, self.gate, self.score = nn.Linear(64, 32), nn.Linear(64, 32), nn.Linear(32, 1)
        self.classify = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, bags: Tensor) -> Tensor:
        hidden = self.embed(bags)
        weights = self.score(self.tanh(hidden).tanh() * self.gate(hidden).sigmoid()).softmax(dim=1)
        return self.classify((weights * hidden).sum(dim=1))[:, 0]


class _OneLayer(nn.Module):
    """A Q-Former of one layer with a linear readout."""

    def __init__(self, csa: bool) -> None:
        super().__init__()
        self.adapter = MivpgModel(
            MivpgConfig(
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=4,
                intermediate_size=64,
                encoder_hidden_size=32,
                num_query_tokens=2,
                input_dim=DIM,
                hidden_dropout_prob=0.0,
                initializer_range=0.1,
                csa=csa,
            )
        )
        self.classify = nn.Linear(2 * 32, 1)

    def forward(self, bags: Tensor) -> Tensor:
        prompt = self.adapter(bags.flatten(0, 1), [bags.shape[1]] * len(bags)).visual_prompt
        return self.classify(prompt.flatten(1))[:, 0]


def _accuracy(make: Callable[[], nn.Module]) -> float:
    """Train on ever new bags, then judge 1000 unseen ones."""
    torch.manual_seed(0)
    model, generator = make(), torch.Generator().manual_seed(1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        bags, labels = _bags(BATCH, generator)
        loss = F.binary_cross_entropy_with_logits(model(bags), labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    bags, labels = _bags(1000, generator)
    with torch.no_grad():
        return float(((model(bags) > 0) == (labels > 0)).float().mean())


@pytest.mark.parametrize("make", [_Abmil, lambda: _OneLayer(csa=False)], ids=["abmil", "q-former"])
def test_pooling_instances_one_by_one_fails_where_the_label_needs_a_pair(make: Callable[[], nn.Module]) -> None:
    assert _accuracy(make) < 0.85


def test_correlated_self_attention_solves_it() -> None:
    assert _accuracy(lambda: _OneLayer(csa=True)) > 0.9
