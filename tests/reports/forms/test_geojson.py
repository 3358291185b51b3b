"""GeoJSON from the report alone: valid, one file per slide, tiles where the report has them."""

import json

import geojson

from tests.reports.forms.whole import OTHER_TILE, TILE, whole_report
from wsi_mivpg.reports import NOT_ASSESSABLE
from wsi_mivpg.reports.forms import collections


def test_it_is_valid_by_an_outside_reader_and_says_what_the_report_says():
    for collection in collections(whole_report()).values():
        read = geojson.loads(json.dumps(collection))
        assert isinstance(read, geojson.FeatureCollection)
        assert read.is_valid, read.errors()
        assert read["report"]["supported"] is False
        assert read["report"]["created"] == "2026-11-23T11:00:00+01:00"


def test_each_slide_has_its_own_tiles_as_squares_of_level_zero():
    found = collections(whole_report())
    first, second = found["S-77 A"]["features"], found["S-77 B"]["features"]
    assert [one["properties"]["name"] for one in first] == ["Report: tile 1", "Sentence 1: tile 1"]
    assert [one["properties"]["name"] for one in second] == ["Report: tile 2", "Sentence 2: tile 1"]
    for feature, tile in [(first[0], TILE), (second[1], OTHER_TILE)]:
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1] == [tile.x, tile.y]
        assert ring[2] == [tile.x + tile.size_l0_px, tile.y + tile.size_l0_px]
        assert feature["properties"]["objectType"] == "detection"
        assert feature["properties"]["measurements"]["Weight (gradient)"] == tile.weight


def test_tiles_of_a_sentence_that_is_not_assessable_do_not_tell_it():
    second = collections(whole_report())["S-77 B"]["features"]
    assert second[1]["properties"]["metadata"]["ANNOTATION_DESCRIPTION"] == NOT_ASSESSABLE


def test_a_slide_without_tiles_of_the_report_has_an_empty_collection():
    found = collections(whole_report(top_tiles=(), sentences=()))
    assert {slide: one["features"] for slide, one in found.items()} == {"S-77 A": [], "S-77 B": []}
