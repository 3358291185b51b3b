"""Pyramid positions: a slide's neighbours meet, nothing else does, and before training nothing happens."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig, MivpgModel
from wsi_mivpg.mivpg.ppeg import NO_CELL, Ppeg, grid_layout, sequence_layout
from wsi_mivpg.mivpg.scenarios import many_images, one_image

DIM = 3
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "encoder_hidden_size": 24,
    "num_query_tokens": 5,
}


def _ppeg(dim: int = DIM) -> Ppeg:
    """A float64 PPEG with random kernels and biases."""
    torch.manual_seed(0)
    ppeg = Ppeg(dim).double()
    with torch.no_grad():
        for parameter in ppeg.parameters():
            parameter.normal_()
    return ppeg


def _pyramid(ppeg: Ppeg, image: Tensor) -> Tensor:
    """The definition on a dense (1, C, H, W) image."""
    return image + ppeg.conv7(image) + ppeg.conv5(image) + ppeg.conv3(image)


def _dense(ppeg: Ppeg, instances: Tensor, cells: Tensor) -> Tensor:
    """One slide: put its instances on an image with an empty background, convolve, take them off again."""
    width, height = (int(side) + 1 for side in cells.amax(dim=0))
    rows, columns = cells[:, 1], cells[:, 0]
    image = torch.zeros(1, instances.shape[1], height, width, dtype=instances.dtype)
    image[0][:, rows, columns] = instances.T
    return _pyramid(ppeg, image)[0][:, rows, columns].T


def _scatter(generator: torch.Generator, count: int, side: int) -> Tensor:
    """Distinct (column, row) cells of a square, in random order."""
    places = torch.randperm(side * side, generator=generator)[:count]
    return torch.stack([places % side, places // side], dim=1)


def _transmil(ppeg: Ppeg, tokens: Tensor) -> Tensor:
    """TransMIL's PPEG on one bag: square by repeating the first instances, convolve, cut to length."""
    side = math.ceil(math.sqrt(len(tokens)))
    padded = torch.cat([tokens, tokens[: side * side - len(tokens)]])
    image = padded.T.reshape(1, -1, side, side)
    return _pyramid(ppeg, image).flatten(2)[0].T[: len(tokens)]


@settings(max_examples=30, deadline=None)
@given(
    bags=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=3),
    side=st.integers(7, 30),
    seed=st.integers(0, 1000),
)
def test_grid_ppeg_equals_a_dense_convolution_with_an_empty_background(
    bags: list[list[int]], side: int, seed: int
) -> None:
    """Ragged bags of several slides; values and every gradient."""
    generator, ppeg = torch.Generator().manual_seed(seed), _ppeg()
    slides = [
        (torch.randn(n, DIM, generator=generator).double(), _scatter(generator, n, side)) for bag in bags for n in bag
    ]
    numbers = [index for bag in bags for index, _ in enumerate(bag)]
    coords = torch.cat(
        [torch.cat([cells, torch.full((len(cells), 1), n)], 1) for (_, cells), n in zip(slides, numbers, strict=True)]
    )
    instances = torch.cat([values for values, _ in slides]).requires_grad_()
    found = ppeg(instances, grid_layout(coords, [sum(bag) for bag in bags]))
    parts = instances.split([len(values) for values, _ in slides])
    expected = torch.cat([_dense(ppeg, part, cells) for part, (_, cells) in zip(parts, slides, strict=True)])
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)

    weights = torch.randn(found.shape, generator=generator).double()
    wanted = [instances, *ppeg.parameters()]
    ours = torch.autograd.grad((found * weights).sum(), wanted)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4), class_token=st.booleans())
def test_sequence_ppeg_equals_transmils(sizes: list[int], class_token: bool) -> None:
    """Square by repeating the first instances; the class token passes untouched; values and every gradient."""
    ppeg, sizes = _ppeg(), [size + class_token for size in sizes]
    instances = torch.randn(sum(sizes), DIM).double().requires_grad_()
    found = ppeg(instances, sequence_layout(sizes, class_token=class_token))
    expected = torch.cat(
        [torch.cat([bag[:class_token], _transmil(ppeg, bag[int(class_token) :])]) for bag in instances.split(sizes)]
    )
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)
    weights, wanted = torch.randn_like(found), [instances, *ppeg.parameters()]
    ours = torch.autograd.grad((found * weights).sum(), wanted)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-10)


def test_before_training_nothing_changes_bit_for_bit() -> None:
    ppeg, instances = Ppeg(DIM), torch.randn(50, DIM)
    for layout in (sequence_layout([20, 30]), grid_layout(_scatter(torch.Generator(), 50, 9), [50])):
        assert torch.equal(ppeg(instances, layout), instances)


def test_what_starts_at_zero_still_learns() -> None:
    ppeg, instances = Ppeg(DIM), torch.randn(50, DIM)
    ppeg(instances, sequence_layout([50])).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in ppeg.parameters())


@settings(max_examples=15, deadline=None)
@given(count=st.integers(2, 60), seed=st.integers(0, 1000))
def test_permuting_instances_together_with_their_cells_changes_nothing(count: int, seed: int) -> None:
    generator, ppeg = torch.Generator().manual_seed(seed), _ppeg()
    instances, cells = torch.randn(count, DIM, generator=generator).double(), _scatter(generator, count, 9)
    order = torch.randperm(count, generator=generator)
    one = ppeg(instances, grid_layout(cells, [count]))
    two = ppeg(instances[order], grid_layout(cells[order], [count]))
    torch.testing.assert_close(one[order], two, atol=1e-12, rtol=1e-12)


def test_a_slide_that_lies_elsewhere_on_its_grid_gives_the_same() -> None:
    ppeg, instances, cells = _ppeg(), torch.randn(40, DIM).double(), _scatter(torch.Generator(), 40, 9)
    here, there = (ppeg(instances, grid_layout(cells + move, [40])) for move in (0, torch.tensor([10**9, 77])))
    torch.testing.assert_close(here, there, atol=1e-12, rtol=1e-12)


def test_slides_of_one_case_do_not_touch_though_their_cells_are_the_same() -> None:
    ppeg, instances, cells = _ppeg(), torch.randn(40, DIM).double(), _scatter(torch.Generator(), 20, 6)
    coords = torch.cat([torch.cat([cells, torch.full((20, 1), slide)], 1) for slide in (0, 5)])
    together = ppeg(instances, grid_layout(coords, [40]))
    for rows in (slice(0, 20), slice(20, 40)):
        torch.testing.assert_close(together[rows], ppeg(instances[rows], grid_layout(cells, [20])))


def test_a_scattered_bag_in_an_enormous_box_needs_no_enormous_memory() -> None:
    """Its box has 10^16 cells. Far apart, each instance meets only itself: the kernels' centres."""
    ppeg, count = _ppeg(), 20_000
    cells = torch.randperm(count)[:, None] * 5000 + torch.tensor([0, 3])
    instances = torch.randn(count, DIM).double()
    centre = sum(conv.weight[:, 0, conv.kernel_size[0] // 2, conv.kernel_size[0] // 2] for conv in ppeg.children())
    expected = instances * (1 + centre) + sum(conv.bias for conv in ppeg.children())
    torch.testing.assert_close(ppeg(instances, grid_layout(cells, [count])), expected, atol=1e-11, rtol=1e-11)


def test_a_large_sparse_bag_equals_the_dense_convolution() -> None:
    ppeg, cells = _ppeg(2), _scatter(torch.Generator().manual_seed(1), 100_000, 1000)
    instances = torch.randn(100_000, 2).double()
    with torch.no_grad():
        found = ppeg(instances, grid_layout(cells, [100_000]))
        torch.testing.assert_close(found, _dense(ppeg, instances, cells), atol=1e-11, rtol=1e-11)


def test_bfloat16_stays_bfloat16_and_near_float32() -> None:
    ppeg, instances, layout = _ppeg().float(), torch.randn(50, DIM), sequence_layout([50])
    exact, rough = ppeg(instances, layout), ppeg.bfloat16()(instances.bfloat16(), layout)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.3, rtol=0.03)


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        (None, "needs every tile's cell"),
        (torch.zeros(3, 2), "int"),
        (torch.zeros(4, 2, dtype=torch.int64), "shape"),
        (torch.zeros(3, 1, dtype=torch.int64), "shape"),
        (torch.full((3, 2), NO_CELL), "needs every tile's cell"),
        (torch.tensor([[0, 0], [1, 0], [-4, 2]]), r"\(-4, 2\)"),
        (torch.tensor([[0, 7], [1, 0], [0, 7]]), r"share the cell \(0, 7\)"),
        (torch.tensor([[0, 0, 0], [NO_CELL, NO_CELL, 1], [1, 0, 0]]), "needs every tile's cell"),
    ],
)
def test_missing_or_impossible_cells_are_refused(coords: Tensor | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        grid_layout(coords, [3])


def test_a_class_token_beside_its_patches_is_left_as_it_is() -> None:
    ppeg, instances = _ppeg(), torch.randn(5, DIM).double()
    cells = torch.tensor([[NO_CELL, NO_CELL], [0, 0], [1, 0], [0, 1], [1, 1]])
    found = ppeg(instances, grid_layout(cells, [5]))
    assert torch.equal(found[0], instances[0])
    torch.testing.assert_close(found[1:], ppeg(instances[1:], grid_layout(cells[1:], [4])))


def _model(*, stir: bool = True, **changes: object) -> MivpgModel:
    """A small model in evaluation mode; stirred, its zero-initialised parts have effect."""
    torch.manual_seed(0)
    model = MivpgModel(MivpgConfig(**{**SIZES, "ppeg": "grid", **changes})).eval()
    if stir:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_each_cross_attention_of_the_model_has_its_own_pyramid_and_blip2_lacks_nothing_else() -> None:
    ours, theirs = _model(stir=False), Blip2QFormerModel(Blip2QFormerConfig(**SIZES)).eval()
    loaded = ours.qformer.load_state_dict(theirs.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert {name for name in loaded.missing_keys if ".csa." not in name} == {
        f"encoder.layer.{layer}.crossattention.ppeg.{conv}.{part}"
        for layer in (0, 2)
        for conv in ("conv7", "conv5", "conv3")
        for part in ("weight", "bias")
    }
    instances, cells = torch.randn(40, 24), _scatter(torch.Generator(), 40, 9)
    with torch.no_grad():
        expected = theirs(query_embeds=ours.query_tokens, encoder_hidden_states=instances[None]).last_hidden_state
        found = ours(instances, [40], coords=cells).visual_prompt
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ppeg", ["sequence", "grid"])
def test_a_model_saved_without_pyramids_loads_with_them_and_is_the_same_bit_for_bit(ppeg: str, tmp_path) -> None:
    plain = _model(ppeg="none")
    plain.save_pretrained(tmp_path)
    model = MivpgModel.from_pretrained(tmp_path, ppeg=ppeg).eval()
    instances, cells = torch.randn(40, 24), _scatter(torch.Generator(), 40, 9)
    with torch.no_grad():
        one, two = plain(instances, [40]), model(instances, [40], coords=cells)
    assert torch.equal(one.visual_prompt, two.visual_prompt)


@pytest.mark.parametrize("order", ["before_csa", "after_csa"])
def test_the_model_reads_places_and_not_the_order_of_instances(order: str) -> None:
    model, instances, cells = _model(ppeg_order=order), torch.randn(40, 24), _scatter(torch.Generator(), 40, 9)
    permutation = torch.randperm(40)
    with torch.no_grad():
        here = model(instances, [40], coords=cells).visual_prompt
        permuted = model(instances[permutation], [40], coords=cells[permutation]).visual_prompt
        elsewhere = model(instances, [40], coords=cells[permutation]).visual_prompt
    torch.testing.assert_close(here, permuted, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(here, elsewhere, atol=1e-3)


def test_whether_positions_come_before_or_after_csa_matters() -> None:
    instances, cells = torch.randn(40, 24), _scatter(torch.Generator(), 40, 9)
    with torch.no_grad():
        one, two = (_model(ppeg_order=order)(instances, [40], coords=cells) for order in ("before_csa", "after_csa"))
    assert not torch.allclose(one.visual_prompt, two.visual_prompt, atol=1e-3)


def test_cases_of_several_slides_give_in_a_batch_what_each_gives_alone() -> None:
    model, generator = _model(), torch.Generator().manual_seed(2)
    counts = [[12, 30], [1], [20]]
    tiles = [[torch.randn(n, 24) for n in case] for case in counts]
    cells = [[_scatter(generator, n, 8) for n in case] for case in counts]
    with torch.no_grad():
        together = model(**vars(many_images(tiles, cells))).visual_prompt
        for index in range(3):
            alone = model(**vars(many_images(tiles[index : index + 1], cells[index : index + 1]))).visual_prompt[0]
            torch.testing.assert_close(together[index], alone, atol=2e-5, rtol=1e-4)


def test_on_a_vits_square_grid_both_pyramids_are_transmils_and_the_class_token_is_untouched() -> None:
    ppeg, packed = _ppeg(), one_image([torch.randn(1 + 16, DIM).double(), torch.randn(1 + 9, DIM).double()])
    found = ppeg(packed.instances, grid_layout(packed.coords, packed.bag_sizes))
    torch.testing.assert_close(
        found, ppeg(packed.instances, sequence_layout(packed.bag_sizes, class_token=True)), atol=1e-12, rtol=1e-12
    )
    assert torch.equal(found[[0, 17]], packed.instances[[0, 17]])


def test_a_model_that_needs_cells_says_so() -> None:
    with pytest.raises(ModelError, match="needs every tile's cell, and no coords were given"):
        _model()(torch.randn(4, 24), [4])
    with pytest.raises(ModelError, match="ppeg is 'square'"):
        MivpgConfig(ppeg="square")
    with pytest.raises(ModelError, match="ppeg_order is 'never'"):
        MivpgConfig(ppeg_order="never")
