"""Any adapter reads cases of slides; bags made otherwise, and sequences that are too long, are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.provenance import PROVENANCE, bag_on_disk
from tests.tiny_captioner import MIVPG, REPORTS, tiny_config
from wsi_mivpg.bags import FeatureBag, write_bag
from wsi_mivpg.captioner import CaptionerConfig, CaseBags, SlideCaptioner, in_memory, pack, read_case
from wsi_mivpg.captioner.configuration import KNOWN_ADAPTERS
from wsi_mivpg.captioner.sequences import pad_labels
from wsi_mivpg.errors import BagError, ModelError


def _captioner(base: Path, **changes: Any) -> SlideCaptioner:
    torch.manual_seed(0)
    captioner = SlideCaptioner.create(tiny_config(base, trains="adapter", **changes)).eval()
    with torch.no_grad():  # CSA and PPEG start at zero: here they shall matter
        for name, parameter in captioner.mivpg.named_parameters():
            if "csa" in name or "ppeg" in name:
                parameter.normal_(std=0.3)
    return captioner


def _slide_bag(path: Path, count: int) -> FeatureBag:
    rng = np.random.default_rng(count)
    grid = np.column_stack([np.arange(count) % 4, np.arange(count) // 4]).astype(np.int32)
    provenance = replace(PROVENANCE, slide_id=path.stem)
    features = rng.standard_normal((count, 12)).astype(np.float16)
    write_bag(path, features, grid * 443, np.ones(count, np.float32), provenance, grid=grid)
    return FeatureBag.open(path)


@pytest.mark.parametrize("adapter", KNOWN_ADAPTERS)
def test_every_adapter_learns_and_writes(adapter: str, tiny_language_model: Path, cases: list[CaseBags]) -> None:
    captioner = _captioner(tiny_language_model, adapter=adapter).train()
    labels = pad_labels([captioner.encode_report(text) for text in REPORTS])
    captioner(**pack(cases), labels=labels).loss.backward()
    without = [name for name, p in captioner.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    captioner.eval()
    together = captioner.generate(cases)
    for one, case in zip(together, cases, strict=True):
        assert captioner.generate([case])[0].token_ids == one.token_ids
        assert one.attention.shape == (len(case),)
        assert float(one.attention.sum()) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_only_the_hierarchical_adapter_knows_where_slides_end(tiny_language_model: Path) -> None:
    features = torch.randn(9, 12, generator=torch.Generator().manual_seed(0))
    one, two = in_memory("a", features), in_memory("a", features[:3], features[3:])
    for adapter, same in (("mivpg", True), ("gated_abmil", True), ("hierarchical", False)):
        captioner = _captioner(tiny_language_model, adapter=adapter)
        prompts = [captioner.visual_prompt(**pack([case]))[0] for case in (one, two)]
        assert torch.allclose(*prompts, atol=1e-6) == same, adapter


@torch.no_grad()
@pytest.mark.parametrize("ppeg", ["none", "grid"])
def test_a_mapped_bag_is_read_as_one_in_memory(tiny_language_model: Path, tmp_path: Path, ppeg: str) -> None:
    captioner = _captioner(tiny_language_model, mivpg={**MIVPG, "absorb_from": 8, "chunk_size": 5, "ppeg": ppeg})
    case = read_case("c", [_slide_bag(tmp_path / "s1.h5", 19)])
    held = CaseBags("c", torch.from_numpy(np.array(case.instances)), case.slide_sizes, case.cells)
    mapped, together = (captioner.visual_prompt(**pack([one], mapped=True))[0] for one in (case, held))
    torch.testing.assert_close(mapped, together, atol=1e-5, rtol=1e-5)
    one, two = (captioner.generate([which])[0] for which in (case, held))
    assert one.token_ids == two.token_ids
    torch.testing.assert_close(one.attention, two.attention, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_places_matter_with_positions_and_only_then(tiny_language_model: Path, tmp_path: Path) -> None:
    case = read_case("c", [_slide_bag(tmp_path / "s1.h5", 12), _slide_bag(tmp_path / "s2.h5", 7)])
    assert case.cells is not None
    moved = replace(case, cells=case.cells * torch.tensor([2, 3, 1]))
    for ppeg, same in (("grid", False), ("none", True)):
        captioner = _captioner(tiny_language_model, mivpg={**MIVPG, "ppeg": ppeg})
        prompts = [captioner.visual_prompt(**pack([one]))[0] for one in (case, moved)]
        assert torch.equal(*prompts) == same
    captioner = _captioner(tiny_language_model, mivpg={**MIVPG, "ppeg": "grid"})
    with pytest.raises(ModelError, match=r"case 'c': .*coords"):
        captioner.generate([replace(case, cells=None)])


def test_the_loss_over_parts_of_a_batch_weighs_tokens_equally(tiny_language_model: Path, cases: list[CaseBags]) -> None:
    captioner = _captioner(tiny_language_model)
    labels = [captioner.encode_report(text) for text in REPORTS]
    count = sum(map(len, labels))
    whole = captioner(**pack(cases), labels=pad_labels(labels)).loss
    parts = [
        captioner(**pack(cases[part]), labels=pad_labels(labels[part]), num_items_in_batch=torch.tensor(count)).loss
        for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), whole, atol=1e-5, rtol=1e-5)


def test_a_sequence_longer_than_the_language_models_is_refused_with_its_numbers(
    tiny_base_of: Any, cases: list[CaseBags]
) -> None:
    captioner = _captioner(tiny_base_of("opt"), prompt_template=None)
    with pytest.raises(
        ModelError, match="4 visual tokens, 6 of the prompt and 300 of the report are more than the 256"
    ):
        captioner(**pack(cases[:1]), labels=torch.full((1, 300), 5))
    assert captioner(**pack(cases[:1]), labels=torch.full((1, 246), 5)).loss.isfinite()


@pytest.mark.parametrize(
    ("name", "value"), [("encoder", "other"), ("feature_dim", 13), ("target_mpp", 0.25), ("tile_px", 256)]
)
def test_a_bag_made_otherwise_is_refused_with_both_values(
    tiny_config: CaptionerConfig, tmp_path: Path, name: str, value: object
) -> None:
    captioner = SlideCaptioner.create(tiny_config)
    bag = bag_on_disk(tmp_path / "s1.h5")
    captioner.check_bag(bag)
    with pytest.raises(ModelError, match=f"{name} {value!r}.*{getattr(tiny_config, name)!r}"):
        captioner.check_bag(replace(bag, **{name: value}))


def test_a_bag_that_does_not_state_what_the_model_asks_is_refused_with_a_way_out(
    tiny_config: CaptionerConfig, tmp_path: Path
) -> None:
    captioner = SlideCaptioner.create(tiny_config)
    np.save(tmp_path / "bare.npy", np.zeros((3, 12), np.float32))
    with pytest.raises(BagError, match=r"does not state its encoder, .*target_mpp, tile_px.*bags convert"):
        captioner.check_bag(FeatureBag.open(tmp_path / "bare.npy"))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"adapter": "magic"}, "adapter is 'magic'; choose from 'mivpg'"),
        ({"trains": "some"}, "trains is 'some'; choose from 'adapter', 'lora', 'lora-4bit', 'full'"),
        ({"trains": "lora", "lora": {"rank": 8}}, r"lora has unknown settings \['rank'\]"),
        ({"prompt_template": "hello"}, "prompt_template 'hello' has no {prompt}"),
        ({"adapter": "hierarchical", "mivpg": {"ppeg": "grid"}}, "set ppeg to 'none'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        CaptionerConfig(**settings)
