"""The paper's three kinds of sample: ragged batches give what each image and each case gives alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig, MivpgModel
from wsi_mivpg.mivpg.ppeg import NO_CELL
from wsi_mivpg.mivpg.scenarios import HierarchicalMivpg, many_images, one_image

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "encoder_hidden_size": 24,
    "num_query_tokens": 5,
    "input_dim": 12,
}


def _stirred(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def test_one_image_of_many_patches_lies_in_its_vits_grid_and_the_class_token_has_no_cell() -> None:
    small, wide = torch.randn(1 + 4, 12), torch.randn(1 + 6, 12)
    packed = one_image([small, wide], shapes=[(2, 2), (3, 2)])
    assert packed.bag_sizes == [5, 7]
    assert torch.equal(packed.instances, torch.cat([small, wide]))
    nowhere = [NO_CELL, NO_CELL, 0]
    first = [nowhere, [0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
    second = [nowhere, [0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0], [1, 1, 0], [2, 1, 0]]
    assert packed.coords.tolist() == first + second
    assert torch.equal(one_image([small]).coords, one_image([small], shapes=[(2, 2)]).coords)


def test_an_image_whose_patches_do_not_fill_its_grid_is_refused() -> None:
    with pytest.raises(ModelError, match=r"image 1 has 5 patch tokens .* 2 columns and 2 rows"):
        one_image([torch.randn(5, 12), torch.randn(6, 12)])


def test_many_images_of_one_embedding_each_keep_their_slides_apart() -> None:
    one, two, three = torch.randn(2, 12), torch.randn(3, 12), torch.randn(1, 12)
    cells = [[torch.tensor([[4, 4], [5, 4]]), torch.tensor([[4, 4], [0, 0], [1, 1]])], [torch.tensor([[9, 9]])]]
    packed = many_images([[one, two], [three]], cells)
    assert packed.bag_sizes == [5, 1]
    assert torch.equal(packed.instances, torch.cat([one, two, three]))
    assert packed.coords.tolist() == [[4, 4, 0], [5, 4, 0], [4, 4, 1], [0, 0, 1], [1, 1, 1], [9, 9, 0]]
    assert many_images([[one, two], [three]]).coords is None
    with pytest.raises(ModelError, match="2 tiles but 3 cells"):
        many_images([[one]], [[torch.zeros(3, 2, dtype=torch.int32)]])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=4))
def test_many_images_of_many_patches_equal_each_image_pooled_and_each_case_read_alone(cases: list[list[int]]) -> None:
    """Ragged numbers of images and of patches."""
    model = _stirred(HierarchicalMivpg(MivpgConfig(**SIZES)))
    images = [[torch.randn(patches, 12) for patches in case] for case in cases]
    with torch.no_grad():
        together = model(torch.cat([image for case in images for image in case]), cases).visual_prompt
        for index, case in enumerate(images):
            embeddings = torch.cat([model.pooling(image, [len(image)])[0] for image in case])
            alone = model.mivpg(embeddings, [len(case)]).visual_prompt[0]
            torch.testing.assert_close(together[index], alone, atol=2e-5, rtol=1e-4)


def test_neither_the_order_of_images_nor_of_patches_matters() -> None:
    model, images = _stirred(HierarchicalMivpg(MivpgConfig(**SIZES))), [torch.randn(n, 12) for n in (3, 1, 6)]
    other = [images[index][torch.randperm(len(images[index]))] for index in (2, 0, 1)]
    with torch.no_grad():
        one, two = model(torch.cat(images), [[3, 1, 6]]), model(torch.cat(other), [[6, 3, 1]])
    torch.testing.assert_close(one.visual_prompt, two.visual_prompt, atol=2e-5, rtol=1e-4)


def test_a_patchs_weight_is_its_images_times_its_own_within_the_image() -> None:
    model, sizes = _stirred(HierarchicalMivpg(MivpgConfig(**SIZES))), [[3, 2], [4]]
    patches = torch.randn(9, 12)
    with torch.no_grad():
        layers = model(patches, sizes, output_attentions=True).cross_attentions
        pooled, within = model.pooling(patches, [3, 2, 4])
        of_images = model.mivpg(pooled, [2, 1], output_attentions=True).cross_attentions
    assert len(layers) == 2
    for layer, image_weights in zip(layers, of_images, strict=True):
        assert [tuple(one.shape) for one in layer] == [(4, 5, 5), (4, 5, 4)]
        torch.testing.assert_close(layer[0][1, 2, 4], image_weights[0][1, 2, 1] * within[1][1])
        for one in layer:
            torch.testing.assert_close(one.sum(-1), torch.ones(4, 5))


def test_images_without_patches_and_cases_without_images_are_refused() -> None:
    model = _stirred(HierarchicalMivpg(MivpgConfig(**SIZES)))
    for sizes in ([[3, 0]], [[3], []], [[2]]):
        with pytest.raises(ModelError):
            model(torch.randn(3, 12), sizes)


def test_a_packed_sample_is_called_as_it_is() -> None:
    model, packed = _stirred(MivpgModel(MivpgConfig(**SIZES))), many_images([[torch.randn(4, 12)]])
    with torch.no_grad():
        assert model(**vars(packed)).visual_prompt.shape == (1, 5, 32)
