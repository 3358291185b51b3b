"""Folding keys and values into the queries changes what is held in memory, not the result."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.mivpg.sizes import PLACED, VARIANTS, small_model, width
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgModel
from wsi_mivpg.mivpg.absorbed import join

COUNT = 70


def _step(model: MivpgModel, bag: Tensor, sizes: list[int]) -> dict[str, Tensor]:
    """The prompt, and the gradients of every parameter and of the instances for a loss that reads all of it."""
    bag = bag.clone().requires_grad_()
    prompt = model(bag, sizes, coords=_cells(len(bag))).visual_prompt
    generator = torch.Generator().manual_seed(3)
    (prompt * torch.randn(prompt.shape, generator=generator, dtype=torch.float64).to(prompt)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {"prompt": prompt.detach(), "instances": bag.grad, **gradients}


def _cells(count: int) -> Tensor:
    """A different (column, row) for each of `count` instances, in no order."""
    place = torch.randperm(count, generator=torch.Generator().manual_seed(5))
    return torch.stack([place % 9, place // 9], dim=1)


def _both(variant: dict[str, Any], chunk_size: int) -> tuple[MivpgModel, MivpgModel]:
    """The same weights, read with SDPA and read in chunks."""
    return small_model(**variant, absorb_from=None), small_model(**variant, absorb_from=1, chunk_size=chunk_size)


@pytest.mark.parametrize("variant", [*VARIANTS, *PLACED], ids=str)
@pytest.mark.parametrize("chunk_size", [1, 16, 1000])
def test_in_float64_it_equals_sdpa_to_the_last_digits_with_all_gradients(
    variant: dict[str, Any], chunk_size: int
) -> None:
    plain, absorbed = (model.double() for model in _both(variant, chunk_size))
    bag = torch.randn(COUNT, width(plain), dtype=torch.float64)
    expected, found = _step(plain, bag, [40, 30]), _step(absorbed, bag, [40, 30])
    for name, tensor in expected.items():
        scale = max(1.0, float(tensor.abs().max()))
        torch.testing.assert_close(
            found[name], tensor, atol=1e-12 * scale, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_its_attention_weights_are_those_of_the_explicit_softmax(variant: dict[str, Any]) -> None:
    plain, absorbed = (model.double() for model in _both(variant, 16))
    bag = torch.randn(COUNT, width(plain), dtype=torch.float64)
    with torch.no_grad():
        expected = plain(bag, [40, 30], output_attentions=True).cross_attentions
        found = absorbed(bag, [40, 30], output_attentions=True).cross_attentions
    assert len(expected) == len(found) == 2
    for one_layer, other_layer in zip(expected, found, strict=True):
        for one, other in zip(one_layer, other_layer, strict=True):
            torch.testing.assert_close(other, one, atol=1e-12, rtol=0)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 300), chunk_size=st.integers(1, 320), seed=st.integers(0, 1000))
def test_the_chunk_size_does_not_change_the_result(count: int, chunk_size: int, seed: int) -> None:
    bag = torch.randn(count, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        whole, cut = (
            small_model(absorb_from=1, chunk_size=size).double()(bag, [count]).visual_prompt
            for size in (count, chunk_size)
        )
    torch.testing.assert_close(cut, whole, atol=1e-12, rtol=0)


def test_scores_that_would_overflow_an_exponential_are_no_trouble() -> None:
    totals = [torch.tensor([900.0, -900.0]), torch.tensor([901.0, -901.0])]
    total, mixed = join([(totals[0], torch.zeros(2, 3)), (totals[1], torch.ones(2, 3))])
    share = torch.sigmoid(torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(mixed, share[:, None].expand(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(total, torch.tensor([901.3133, -899.6867]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("variant", [{}, {"csa_carry": "reset"}], ids=str)
def test_in_bfloat16_it_is_as_near_to_float64_as_sdpa(variant: dict[str, Any]) -> None:
    """Bounds: a prompt of unit variance within 0.1 everywhere and 0.02 in the mean, and at most twice SDPA's error."""
    plain, absorbed = (model.to(torch.bfloat16) for model in _both(variant, 100))
    exact = small_model(**variant, absorb_from=None)
    exact.load_state_dict(plain.state_dict())
    bag = torch.randn(700, 40).to(torch.bfloat16)
    with torch.no_grad():
        truth = exact.double()(bag, [700]).visual_prompt
        errors = [(model(bag, [700]).visual_prompt.double() - truth).abs() for model in (plain, absorbed)]
    assert float(errors[1].max()) < 0.1
    assert float(errors[1].mean()) < 0.02
    assert float(errors[1].mean()) < 2 * float(errors[0].mean())


def test_under_autocast_it_trains_and_keeps_float32_instances() -> None:
    plain, absorbed = _both({}, 16)
    bag = torch.randn(COUNT, 40)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = _step(plain, bag, [COUNT]), _step(absorbed, bag, [COUNT])
    truth = _step(small_model(absorb_from=None).double(), bag.double(), [COUNT])
    for name, exact in truth.items():
        one, other = ((step[name].double() - exact).norm() / (exact.norm() + 1e-3) for step in (expected, found))
        assert float(other) < max(2 * float(one), 0.05), name


def test_short_bags_are_read_with_sdpa_and_long_ones_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsi_mivpg.mivpg import attention

    lengths: list[int] = []
    real = attention.read_stream

    def counted(stream: Any, *rest: Any) -> Any:
        lengths.append(sum(map(len, stream.chunks)))
        return real(stream, *rest)

    monkeypatch.setattr(attention, "read_stream", counted)
    with torch.no_grad():
        small_model(absorb_from=30)(torch.randn(COUNT, 40), [29, 30, 11])
    assert set(lengths) == {30}


def test_dropout_on_the_attention_of_a_long_bag_is_refused_in_training_only() -> None:
    model = small_model(absorb_from=30, attention_probs_dropout_prob=0.1)
    bag = torch.randn(30, 40)
    model(bag, [30])
    model.train()
    model(bag, [15, 15])
    with pytest.raises(ModelError, match=r"attention_probs_dropout_prob is 0\.1.*absorb_from to None"):
        model(bag, [30])


class _Memory(TorchDispatchMode):
    """Follows every storage that operations make: the largest, and the most that lived at one time, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.peak = 0
        self.living: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for tensor in (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in given:  # no view, nor in place
                self.living[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self.largest = max(self.largest, storage.nbytes())
        self.living = {key: held for key, held in self.living.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.living.values()))
        return result


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("train", [False, True])
def test_nothing_larger_than_a_chunk_is_made_and_memory_is_linear(variant: dict[str, Any], train: bool) -> None:
    model = small_model(**variant, absorb_from=1, chunk_size=100)
    seen = {}
    for count in (1000, 2000):
        bag = torch.randn(count, width(model))
        model.zero_grad(set_to_none=True)
        with _Memory() as seen[count], torch.set_grad_enabled(train):
            prompt = model(bag, [count]).visual_prompt
            if train:
                prompt.sum().backward()
    assert seen[1000].largest == seen[2000].largest <= 100 * 40 * 4
    assert seen[2000].peak <= 2.2 * seen[1000].peak
    if not train:  # the updated bag at most, and a few chunks
        assert seen[2000].peak <= 2000 * 24 * 4 + 10 * 100 * 40 * 4


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_bag_that_stays_in_its_file_gives_what_it_gives_in_memory(variant: dict[str, Any], tmp_path: Path) -> None:
    model = small_model(**variant, absorb_from=20, chunk_size=16)
    features = np.random.default_rng(0).standard_normal((COUNT, width(model))).astype(np.float16)
    with h5py.File(tmp_path / "bag.h5", "w") as file:
        file["features"] = features
    view = FeatureBag.open(tmp_path / "bag.h5").features_view()
    assert isinstance(view, np.memmap)
    for sizes in ([COUNT], [40, 30], [60, 10]):
        with torch.no_grad():
            expected = model(torch.from_numpy(features), sizes, output_attentions=True)
            found = model(view, sizes, output_attentions=True)
        torch.testing.assert_close(found.visual_prompt, expected.visual_prompt, atol=1e-6, rtol=0)
        for one_layer, other_layer in zip(expected.cross_attentions, found.cross_attentions, strict=True):
            for one, other in zip(one_layer, other_layer, strict=True):
                torch.testing.assert_close(other, one, atol=1e-6, rtol=0)
    assert np.array_equal(FeatureBag.open(tmp_path / "bag.h5").features, features)


def test_a_bag_in_its_file_has_no_gradients_and_says_so() -> None:
    model = small_model(absorb_from=20)
    with pytest.raises(ModelError, match=r"torch\.no_grad"):
        model(np.zeros((30, 40), np.float16), [30])


def test_positions_for_a_bag_in_its_file_are_refused() -> None:
    with torch.no_grad(), pytest.raises(ModelError, match="PPEG needs all instances"):
        small_model(absorb_from=20, ppeg="sequence")(np.zeros((30, 40), np.float16), [30])


def test_a_full_disk_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(absorb_from=20)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: open("/dev/full", "w+b"))  # noqa: SIM115
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with torch.no_grad(), pytest.raises(ModelError, match="TMPDIR"):
        model(np.zeros((300, 40), np.float16), [300])
