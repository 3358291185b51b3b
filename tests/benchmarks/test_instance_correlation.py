"""The experiment on instance correlation: its truth, its balance, its sentences, and a run from end to end."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from instance_correlation import tissue_maps
from instance_correlation.baselines import BASELINES
from instance_correlation.cohort import LEAST_STAIN_DISTANCE, VirtualCase, _two_stains, compose
from instance_correlation.command import main
from instance_correlation.statistics import paired
from instance_correlation.systems import (
    REFERENCE,
    SYSTEMS,
    adapter_parameters,
    new_captioner,
    settings_of,
    word_tokenizer,
)
from instance_correlation.tiles import SPLITS, STAINS, WIDTH, TileFeatures, stained, tile_features
from instance_correlation.tissue_maps import FIRST, MAIN, PARTNER, ROLES, SECOND
from instance_correlation.training import whole
from instance_correlation.wording import (
    PHRASES,
    TEMPLATES,
    all_words,
    compose_report,
    read_report,
    score,
    stated,
)
from wsi_mivpg.captioner import CaseBags, SlideCaptioner

N_CASES = 192
TILES_PER_ROLE = 6


def invented_tiles(seed: int = 0) -> TileFeatures:
    """Features whose tissue is plain, and whose stain is not."""
    rng = np.random.default_rng(seed)
    roles = np.repeat(np.arange(1, len(ROLES) + 1), TILES_PER_ROLE)
    features = rng.normal(0, 0.1, (len(roles), len(STAINS), WIDTH)).astype(np.float32)
    features[np.arange(len(roles)), :, roles] += 5
    colours = rng.uniform(0, 255, (len(roles), len(STAINS), 6)).astype(np.float32)
    return TileFeatures(features, colours, roles.astype(np.int64), tuple(f"{seed}/{n}" for n in range(len(roles))))


@pytest.fixture(scope="module")
def cases() -> list[VirtualCase]:
    return compose("crc5", invented_tiles(), "train", N_CASES)


def cross_shaped(mask: np.ndarray) -> tuple[np.ndarray, int]:
    return ndimage.label(mask, structure=ndimage.generate_binary_structure(2, 1))


def test_the_truth_is_what_scipy_finds_on_the_maps(cases: Sequence[VirtualCase]) -> None:
    for case in cases:
        main, partner, first, second = (
            [index == role for index in case.maps] for role in (MAIN, PARTNER, FIRST, SECOND)
        )
        touching = any((ndimage.binary_dilation(a) & b).any() for a, b in zip(main, partner, strict=True))
        foci = [cross_shaped(one) for one in main]
        areas = [area for named, count in foci for area in ndimage.sum_labels(named > 0, named, range(1, count + 1))]
        tissue = sum(int((index > 0).sum()) for index in case.maps)
        assert case.truth.relation == ("touching" if touching else "apart")
        assert case.truth.n_foci == sum(count for _, count in foci)
        assert case.truth.largest_mm2 == pytest.approx(max(areas) * 0.01)
        assert case.truth.share_percent == pytest.approx(100 * sum(int(one.sum()) for one in main) / tissue)
        assert case.truth.second == any(one.any() for one in second)
        here, there = ([bool(one.any()) for one in several] for several in (main, first))
        wanted = "absent" if not any(there) else "same slide" if here == there else "other slide"
        assert case.truth.first == wanted


def test_the_partner_is_on_the_main_tissues_slide_and_apart_means_two_cells_of_something_else(
    cases: Sequence[VirtualCase],
) -> None:
    for case in cases:
        slides = [index for index in case.maps if (index == MAIN).any()]
        assert len(slides) == 1
        assert (slides[0] == PARTNER).any()
        if case.truth.relation == "apart":
            steps = ndimage.distance_transform_cdt(slides[0] != PARTNER, metric="chessboard")[slides[0] == MAIN]
            assert steps.min() >= 3


def test_every_piece_of_tissue_is_one_piece_of_the_size_in_its_plan() -> None:
    rng = np.random.default_rng(5)
    for plan in tissue_maps.plans(48, rng):
        maps = tissue_maps.draw_maps(plan, rng)
        assert tuple(int((index > 0).sum()) for index in maps) == plan.slide_cells
        assert all(cross_shaped(index > 0)[1] == 1 for index in maps)
        named = [cross_shaped(index == MAIN)[0] for index in maps]
        areas = [area for one in named for area in np.bincount(one.ravel())[1:]]
        assert sorted(areas) == sorted(plan.foci_cells)


def test_no_marginal_tells_relation_or_cooccurrence(cases: Sequence[VirtualCase]) -> None:
    truths = [case.truth for case in cases]
    for relation in tissue_maps.RELATIONS:
        some = [truth for truth in truths if truth.relation == relation]
        assert len(some) == N_CASES / 2
        assert np.mean([truth.first == "absent" for truth in some]) == 0.5
        assert np.mean([truth.n_foci for truth in some]) == 2
    for first in (True, False):
        both = [truth for truth in truths if (truth.first != "absent") == first]
        assert np.mean([truth.second for truth in both]) == 0.5
    asked = [truth.first for truth in truths if truth.first != "absent"]
    assert asked.count("same slide") == asked.count("other slide")


def test_shares_of_all_tissues_tell_presence_but_neither_adjacency_nor_cooccurrence(
    cases: Sequence[VirtualCase],
) -> None:
    shares = np.array(
        [
            [sum(int((index == role).sum()) for index in case.maps) / len(case.bags) for role in range(1, 6)]
            for case in cases
        ]
    )
    present = np.array([case.truth.first != "absent" for case in cases])
    labels = {
        "presence": present,
        "adjacency": np.array([case.truth.relation == "touching" for case in cases]),
        "co-occurrence": present == np.array([case.truth.second for case in cases]),
    }
    half = N_CASES // 2
    right = {}
    for name, label in labels.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(shares[:half], label[:half])
        right[name] = model.score(shares[half:], label[half:])
    assert right["presence"] > 0.95
    assert abs(right["adjacency"] - 0.5) < 0.15
    assert abs(right["co-occurrence"] - 0.5) < 0.15


def test_instances_lie_where_the_map_has_their_tissue(cases: Sequence[VirtualCase]) -> None:
    tiles = invented_tiles()
    for case in cases[:20]:
        assert case.bags.cells is not None
        columns, rows, slides = case.bags.cells.numpy().T
        drawn = np.array(
            [case.maps[slide][row, column] for column, row, slide in zip(columns, rows, slides, strict=True)]
        )
        np.testing.assert_array_equal(tiles.roles[case.tiles], drawn)
        assert np.asarray(case.bags.instances)[:, 1:6].argmax(axis=1).tolist() == (drawn - 1).tolist()
        assert case.bags.slide_sizes == tuple(int((index > 0).sum()) for index in case.maps)


def test_finer_tiles_are_the_same_cases_with_every_cell_drawn_as_several(cases: Sequence[VirtualCase]) -> None:
    tiles = invented_tiles()
    fine = compose("crc5", tiles, "train", 12, cell_side_tiles=2)
    for one, other in zip(fine, cases, strict=False):
        assert (one.report, one.truth) == (other.report, other.truth)
        assert len(one.bags) == 4 * len(other.bags)
        assert one.bags.cells is not None
        columns, rows, slides = one.bags.cells.numpy().T
        there = [
            one.maps[slide][row // 2, column // 2] for column, row, slide in zip(columns, rows, slides, strict=True)
        ]
        np.testing.assert_array_equal(tiles.roles[one.tiles], there)


def test_a_smaller_cohort_is_the_beginning_of_a_larger_one(cases: Sequence[VirtualCase]) -> None:
    few = compose("crc5", invented_tiles(), "train", 50)
    for one, other in zip(few, cases, strict=False):
        assert one.report == other.report
        np.testing.assert_array_equal(one.bags.instances, other.bags.instances)


def test_training_and_test_cases_share_no_tile_and_no_map(cases: Sequence[VirtualCase], shared_data: Path) -> None:
    crc5 = shared_data / "tiles" / "crc5"
    if not crc5.is_dir():
        pytest.skip(f"no tiles at {crc5}")
    within = tile_features("crc5-within", crc5, at_most=4)
    assert set(within["train"].roles) == set(within["test"].roles) == set(range(1, 6))
    features = tile_features("crc5", crc5, at_most=4)
    for both in (features, within):
        assert not set(both["train"].names) & set(both["test"].names)
    for split in SPLITS:
        assert all(name.startswith(f"{split}/") for name in features[split].names)
        assert features[split].features.shape == (4 * len(ROLES), len(STAINS), WIDTH)
    test = compose("crc5", invented_tiles(), "test", 48)
    seen = {case.maps[0].tobytes() for case in cases}
    assert not any(case.maps[0].tobytes() in seen for case in test)


def test_principal_components_come_of_training_tiles_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_MIVPG_CACHE", str(tmp_path))
    train = np.random.default_rng(0).normal(size=(40, 4, 200)).astype(np.float16)
    rest = np.zeros((40, 4, 6), np.float32), np.ones(40, np.int64), tuple(map(str, range(40)))
    found = []
    for test in (train, 100 * train):
        raw = {"train": (train.astype(np.float32), *rest), "test": (test.astype(np.float32), *rest)}
        monkeypatch.setattr("instance_correlation.tiles._kept", lambda *_, raw=raw: raw)
        found.append(tile_features("rendered")["train"].features)
    np.testing.assert_array_equal(*found)


def test_a_stain_multiplies_optical_density() -> None:
    tile = np.random.default_rng(0).integers(40, 255, (8, 8, 3), dtype=np.uint8)
    density = -np.log(stained(tile, np.array([0.8, 1.0, 1.25])) / 255)
    np.testing.assert_allclose(density, -np.log(tile / 255) * [0.8, 1.0, 1.25], atol=0.02)


@pytest.mark.parametrize("source", PHRASES)
def test_every_sentence_is_read_back(source: str, cases: Sequence[VirtualCase]) -> None:
    unseen = {(sentence, value) for sentence, options in TEMPLATES.items() for value in options}
    for case in cases[:96]:
        right = stated(case.truth)
        text = compose_report(right, source)
        assert read_report(text, source) == right, text
        assert all(fine is not False for fine in score(read_report(text, source), case.truth).values())
        unseen -= {(sentence, getattr(right, sentence, None) or "") for sentence in TEMPLATES}
    assert not unseen


def test_what_is_not_said_is_wrong_and_a_false_statement_is_wrong_in_its_field_alone(
    cases: Sequence[VirtualCase],
) -> None:
    truth = next(case.truth for case in cases if case.truth.first == "same slide" and case.truth.relation == "apart")
    assert not any(score(read_report("Tissue.", "crc5"), truth).values())
    right = stated(truth)
    changes = {"relation": "touching", "n_foci": 7, "largest_mm2": 9.0, "share_percent": 95, "first": "other slide"}
    fields = {"relation": "d", "n_foci": "e foci", "largest_mm2": "e largest", "share_percent": "b", "first": "f"}
    for name, value in changes.items():
        wrong = compose_report(type(right)(**{**vars(right), name: value}), "crc5")
        missed = [field for field, fine in score(read_report(wrong, "crc5"), truth).items() if not fine]
        assert len(missed) == 1
        assert missed[0].startswith(fields[name])


@pytest.mark.parametrize("source", PHRASES)
def test_the_language_model_knows_every_word_of_every_report(source: str, cases: Sequence[VirtualCase]) -> None:
    tokenizer = word_tokenizer(all_words(source))
    for case in cases:
        ids = tokenizer(compose_report(stated(case.truth), source))["input_ids"]
        assert tokenizer.unk_token_id not in ids


def test_all_systems_have_nearly_as_many_parameters() -> None:
    sizes = {name: adapter_parameters(system.adapter, settings_of(system)) for name, system in SYSTEMS.items()}
    for name, size in sizes.items():
        assert size == pytest.approx(sizes[REFERENCE], rel=0.06), name


@pytest.mark.parametrize("name", SYSTEMS)
def test_only_positions_see_where_tiles_lie_and_only_the_perceiver_how_many_there_are(
    name: str, cases: Sequence[VirtualCase]
) -> None:
    """What README.md says that systems cannot see, whatever their weights are."""
    captioner = new_captioner(SYSTEMS[name], all_words("crc5"), 0).eval()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in captioner.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    case = whole(cases[0].bags)
    first, second = case.slide_sizes
    moved = torch.cat([torch.randperm(first, generator=rng), first + torch.randperm(second, generator=rng)])
    seen = prompt_of(captioner, case, case.cells)
    if "PPEG" in name:
        elsewhere = case.cells[moved] if "grid" in name else case.cells
        shuffled = CaseBags("shuffled", case.instances[moved], case.slide_sizes, elsewhere)
        reordered = prompt_of(captioner, shuffled, elsewhere)
        assert torch.allclose(reordered, seen, atol=1e-3) == ("grid" in name)
        other = prompt_of(captioner, case, case.cells[moved])
        assert torch.allclose(other, seen, atol=1e-3) == ("grid" not in name)
        return
    shuffled = CaseBags("shuffled", case.instances[moved], case.slide_sizes, case.cells)
    assert torch.allclose(prompt_of(captioner, shuffled, case.cells), seen, atol=1e-3)
    twice = torch.cat([case.instances[:first].repeat(2, 1), case.instances[first:].repeat(2, 1)])
    doubled = prompt_of(captioner, CaseBags("doubled", twice, (2 * first, 2 * second), None), None)
    assert torch.allclose(doubled, seen, atol=1e-3) == (name != "Perceiver")


def prompt_of(captioner: SlideCaptioner, case: CaseBags, cells: torch.Tensor | None) -> torch.Tensor:
    with torch.no_grad():
        return captioner.visual_prompt(case.instances, [list(case.slide_sizes)], cells)[0]


def test_the_two_slides_of_a_case_are_stained_differently() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        stains = _two_stains(rng)
        np.testing.assert_allclose(stains.sum(axis=1), 1)
        assert np.abs(stains[0] - stains[1]).sum() / 2 >= LEAST_STAIN_DISTANCE


def test_paired_intervals_hold_a_known_difference_and_leave_out_zero_when_it_is_large() -> None:
    rng = np.random.default_rng(0)
    base = (rng.random((3, 400)) < 0.5).astype(float)
    better = np.maximum(base, rng.random((3, 400)) < 0.4)
    found = paired(better, base)
    assert found.low < found.value < found.high
    assert found.low > 0.1
    assert found.low < 0.2 < found.high
    assert paired(base, base).low == paired(base, base).high == 0
    within = [high - low for _, low, high in found.per_seed]
    expected = 2 * 1.96 * np.sqrt((better - base).var(axis=1) / 400)
    np.testing.assert_allclose(within, expected, rtol=0.1)


def test_a_quick_run_goes_from_tiles_to_tables_and_is_not_done_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--quick",
        "--source",
        "rendered",
        "--systems",
        "mean pooling,MIVPG + grid PPEG",
        "--out",
        str(tmp_path),
    ]
    main(arguments)
    results = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {result["system"] for result in results} == {"mean pooling", "MIVPG + grid PPEG", *BASELINES}
    for result in results:
        assert all(len(outcomes) == result["n_test"] == 12 for outcomes in result["fields"].values())
    trained = next(result for result in results if result["system"] == "mean pooling")
    assert trained["losses"][-1][1] < trained["losses"][0][1]
    assert "MIVPG + grid PPEG − MIVPG" not in (tmp_path / "RESULTS.md").read_text()
    assert "| mean pooling | 1 |" in (tmp_path / "RESULTS.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    capsys.readouterr()
    main(arguments)
    assert "5 jobs, 5 of them done" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    kept = next(iter(before))
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "n_test": 11}))
    with pytest.raises(SystemExit, match="other test cases"):
        main(arguments)
