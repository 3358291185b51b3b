"""One encode loop: batches of one shape that span slides, several encoders and threads, features in their place."""

import numpy as np
import pytest
from PIL import Image

from tests.extraction.crash import bags, write_slides
from tests.extraction.driver import MeanColour
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.errors import EncoderError, ResolutionError
from wsi_mivpg.extraction import SlideSettings, TileChoice, choose_tiles, engine, extract_many, find_slides
from wsi_mivpg.slides import open_slide


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    return find_slides([write_slides(tmp_path_factory.mktemp("engine") / "slides", 3)])


class OnDevice(MeanColour):
    """Claims to run on an accelerator: other threads then read than encode."""

    device = "an accelerator"


def test_batches_span_slides_and_have_one_shape(slides, tmp_path):
    encoder = MeanColour()
    summary = extract_many(slides, tmp_path, [encoder], batch_size=100)
    n_tiles = sum(one.n_tiles for one in summary.results)
    assert n_tiles > 300
    assert set(encoder.batches) == {100}
    assert len(encoder.batches) == -(-n_tiles // 100)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("encoder", [MeanColour, OnDevice])
def test_bags_do_not_depend_on_threads_batches_or_company(slides, tmp_path, encoder, threads):
    extract_many(slides, tmp_path / "many", [encoder()], batch_size=17, threads=threads)
    for slide in slides:
        extract_many([slide], tmp_path / "alone", [MeanColour()], batch_size=64, threads=1)
    assert bags(tmp_path / "many") == bags(tmp_path / "alone")


def test_encoders_of_the_same_tiles_share_one_decoding_pass(slides, tmp_path, monkeypatch):
    reads = []
    read_region = open_slide(slides[0].source).__class__.read_region

    def counting(self, x, y, *arguments, **named):
        reads.append((self.path, x, y))
        return read_region(self, x, y, *arguments, **named)

    monkeypatch.setattr("wsi_mivpg.slides.reading.Slide.read_region", counting)
    first, second = MeanColour(name="one"), MeanColour("1" * 64, name="two")
    summary = extract_many(slides, tmp_path, [first, second], batch_size=8)
    assert len(reads) == len(set(reads)) == sum(one.n_tiles for one in summary.results)
    for result in summary.results:
        assert [path.relative_to(tmp_path).parts[0] for path in result.bag_paths] == ["one", "two"]
        one, two = (FeatureBag.open(path) for path in result.bag_paths)
        assert np.array_equal(one.features, two.features)
        assert (one.provenance.encoder, two.provenance.encoder) == ("one", "two")


def test_encoders_of_other_tiles_have_their_own_pass(slides, tmp_path):
    summary = extract_many(slides, tmp_path, [MeanColour(name="small"), MeanColour(name="large", tile_px=128)])
    for result in summary.results:
        small, large = (FeatureBag.open(path) for path in result.bag_paths)
        assert (small.provenance.tile_px, large.provenance.tile_px) == (64, 128)
        assert len(small) > 3 * len(large) > 0


def test_only_the_missing_encoder_runs_again(slides, tmp_path):
    extract_many(slides, tmp_path, [MeanColour(name="one"), MeanColour(name="two")])
    before = bags(tmp_path / "two")
    (tmp_path / "two" / "s1.h5").unlink()
    one, two = MeanColour(name="one"), MeanColour(name="two")
    summary = extract_many(slides, tmp_path, [one, two])
    assert [result.state for result in summary.results] == ["kept", "done", "kept"]
    assert one.batches == []
    assert two.batches
    assert bags(tmp_path / "two") == before


def test_features_too_many_for_memory_are_the_same_from_a_file(slides, tmp_path, monkeypatch):
    extract_many(slides, tmp_path / "memory", [MeanColour()])
    monkeypatch.setattr(engine, "_IN_MEMORY_BYTES", 100)
    extract_many(slides, tmp_path / "file", [MeanColour()])
    assert bags(tmp_path / "file") == bags(tmp_path / "memory")


def test_an_encoders_error_ends_the_run_with_it(slides, tmp_path):
    class Failing(MeanColour):
        def encode(self, tiles):
            raise EncoderError("out of order")

    with pytest.raises(EncoderError, match="out of order"):
        extract_many(slides, tmp_path, [Failing()])
    assert not bags(tmp_path)
    assert not (tmp_path / ".claims").exists()


def test_where_the_time_went_is_told(slides, tmp_path):
    (part,) = extract_many(slides, tmp_path, [MeanColour(delay_s=0.02)], batch_size=16, threads=2).throughput
    assert part.n_tiles > 300
    assert 0 < part.encoder_busy <= 1
    assert 0 < part.reading <= 1
    assert part.tiles_per_s == pytest.approx(part.n_tiles / part.encode_phase_s)
    assert 0 < part.encode_phase_s <= part.wall_s
    assert "tiles/s" in (tmp_path / "summary.md").read_text()


def test_tiles_of_the_users_own_size_and_resolution(slides, tmp_path):
    (result, *_) = extract_many(slides, tmp_path, [MeanColour()], tiles=TileChoice(100, 0.75)).results
    made = FeatureBag.open(result.bag_path).provenance
    assert (made.tile_px, made.target_mpp) == (100, 0.75)
    assert made.tile_size_l0 == pytest.approx(150)


def test_tiles_that_an_encoder_was_not_trained_on_need_force():
    spec = MeanColour().spec
    assert choose_tiles([spec], None, None) is None
    assert choose_tiles([spec], 128, 0.25) == TileChoice(128, 0.25)  # reaches it at the same resolution
    with pytest.raises(EncoderError, match=r"mean-colour was trained on 64 px of 0\.5.*at 1 microns.*--force"):
        choose_tiles([spec], None, 1.0)
    assert choose_tiles([spec], None, 1.0, force=True) == TileChoice(64, 1.0)


@pytest.fixture
def patches(tmp_path):
    """Two slides as patches of 128 px of one colour each."""
    for slide in ("s1", "s2"):
        (tmp_path / "patches" / slide).mkdir(parents=True)
        for number in range(5):
            colour = (10 * number, 100, 200 if slide == "s1" else 50)
            Image.new("RGB", (128, 128), colour).save(tmp_path / "patches" / slide / f"{number}.png")
    return find_slides([tmp_path / "patches"], patches=True)


def test_patches_become_bags_that_say_that_their_places_are_unknown(patches, tmp_path):
    extract_many(patches, tmp_path / "bags", [MeanColour()])
    bag = FeatureBag.open(tmp_path / "bags" / "s1.h5")
    assert np.allclose(bag.features, [(10 * number, 100, 200) for number in range(5)])
    assert (bag.coords == -1).all()
    assert (bag.provenance.coords_known, bag.provenance.reader) == (False, "patches")
    assert np.isnan(bag.provenance.slide_mpp)
    again = extract_many(patches, tmp_path / "bags", [MeanColour()])
    assert [one.state for one in again.results] == ["kept", "kept"]
    assert "microns per pixel unknown" in (tmp_path / "bags" / "status.csv").read_text()


def test_patches_of_a_stated_resolution_have_to_fit_the_encoder(patches, tmp_path):
    extract_many(patches, tmp_path / "fits", [MeanColour()], settings=SlideSettings(mpp=0.25), raise_errors=True)
    assert FeatureBag.open(tmp_path / "fits" / "s2.h5").provenance.target_mpp == 0.5
    with pytest.raises(ResolutionError, match=r"shrunk to 64 px, are 1 microns per pixel, not the 0\.5"):
        extract_many(patches, tmp_path / "not", [MeanColour()], settings=SlideSettings(mpp=0.5), raise_errors=True)


def test_a_patch_that_cannot_be_read_is_left_out_and_counted(patches, tmp_path):
    patches[0].patches.paths[2].write_bytes(b"no picture")
    summary = extract_many(patches, tmp_path / "bags", [MeanColour()])
    assert [(one.n_tiles, one.n_unreadable) for one in summary.results] == [(4, 1), (5, 0)]
    bag = FeatureBag.open(tmp_path / "bags" / "s1.h5")
    assert np.allclose(bag.features[:, 0], [0, 10, 30, 40])
