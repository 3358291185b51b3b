"""The content tree of a report's DICOM SR document: who observed, what it says, and a measurement group for each part.

Imports highdicom, and so is imported only where it is there. Concepts that no standard code names are of the scheme
99WSIMIVPG, which is listed in docs/report-forms.md.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import wsi_mivpg
from wsi_mivpg.reports.dicom_uids import DicomInstance
from wsi_mivpg.reports.forms.dicom_sr import WHOLE_SLIDE_IMAGE, derived_uid
from wsi_mivpg.reports.forms.document import (
    gate_line,
    printable,
    sections,
    sentence_in_words,
    shown_lines,
    status_lines,
)
from wsi_mivpg.reports.report import FieldValue, Gate, Report, Sentence, TopTile
from wsi_mivpg.reports.support import map_method

_SCHEME = "99WSIMIVPG"
CODING_SCHEME = CodingSchemeIdentificationItem(
    _SCHEME, name="WSI-MIVPG concepts", version="1", responsible_organization="WSI-MIVPG"
)
WEIGHT = sr.CodedConcept("tile-weight", _SCHEME, "Weight of a tile")
GATE = sr.CodedConcept("trust-gate", _SCHEME, "Value of a trust gate")
VALUE = sr.CodedConcept("field-value", _SCHEME, "Value of a field")
_NUMBER = sr.CodedConcept.from_code(codes.UCUM.NoUnits)
_PERCENT = sr.CodedConcept.from_code(codes.UCUM.Percent)

_Group = sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations


def content(report: Report, seed: str) -> sr.MeasurementReport:
    """Return the root container; `seed` decides the UIDs of what is tracked."""
    instances = {slide.slide_id: slide.dicom for slide in report.slides if slide.dicom is not None}
    builder = _Builder(report, seed, instances)
    root = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(report)),
        procedure_reported=codes.SCT.HistopathologyTest,
        imaging_measurements=list(builder.groups()),
    )
    items = root[0].ContentSequence
    items.append(_text(codes.DCM.Conclusion, [*status_lines(report), "", *shown_lines(report)]))
    for section in sections(report):
        items.append(_text(codes.DCM.Comment, [f"{section.title}:", *section.lines]))
    return root


class _Builder:
    """Makes the measurement groups of one report: of the whole, its fields, its sentences and their tiles."""

    def __init__(self, report: Report, seed: str, instances: dict[str, DicomInstance]) -> None:
        self._report = report
        self._seed = seed
        self._instances = instances
        version = report.provenance.versions.get("wsi-mivpg", wsi_mivpg.__version__)
        self._algorithm = sr.AlgorithmIdentification(
            name=f"WSI-MIVPG, model {report.model.get('name') or 'unknown'}",
            version=printable(version),
            manufacturer="WSI-MIVPG",
        )

    def groups(self) -> Iterator[_Group]:
        yield self._whole()
        for gate in self._report.gates:
            yield self._gate(gate)
        for number, field in enumerate(self._report.fields, 1):
            yield self._field(number, field)
        yield from self._tiles("Report", self._report.top_tiles, map_method(self._report))
        for number, sentence in enumerate(self._report.sentences, 1):
            yield self._sentence(number, sentence)
            yield from self._tiles(f"Sentence {number}", sentence.top_tiles, sentence.method or "no method")

    def _whole(self) -> _Group:
        uids = dict.fromkeys(one.instance_uid for one in self._instances.values())
        name = f"Report on case {self._report.case_id}"
        return self._group(name, (), [sr.SourceImageForMeasurementGroup(WHOLE_SLIDE_IMAGE, uid) for uid in uids])

    def _gate(self, gate: Gate) -> _Group:
        measured = [sr.Measurement(GATE, gate.value, _NUMBER)] if math.isfinite(gate.value) else []
        group = self._group(f"Trust gate: {gate.name}", measured)
        _add(group, _text(codes.DCM.Comment, [gate_line(gate)]))
        return group

    def _field(self, number: int, field: FieldValue) -> _Group:
        group = self._group(f"Field {number}: {field.name}", _certainty(field.certainty))
        _add(group, _text(VALUE, [field.shown_value]))
        return group

    def _sentence(self, number: int, sentence: Sentence) -> _Group:
        measured = [] if sentence.confidence is None else _certainty(sentence.confidence)
        group = self._group(f"Sentence {number}", measured)
        _add(group, _text(codes.DCM.Finding, [sentence_in_words(sentence)]))
        return group

    def _group(
        self, name: str, measured: Sequence[sr.Measurement], source: Sequence[sr.SourceImageForMeasurementGroup] = ()
    ) -> _Group:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(name),
            algorithm_id=self._algorithm,
            measurements=measured or None,
            source_images=source or None,
        )

    def _tiles(self, name: str, tiles: Sequence[TopTile], method: str) -> Iterator[_Group]:
        """Yield a region for each tile of a slide that is DICOM; others' tiles have no image to lie on."""
        for place, tile in enumerate(tiles, 1):
            instance = self._instances.get(tile.slide_id)
            if instance is None or not (math.isfinite(tile.weight) and math.isfinite(tile.size_l0_px)):
                continue
            yield sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=self._tracking(f"{name}: tile {place}, by {method}"),
                referenced_region=_square(tile, instance),
                algorithm_id=self._algorithm,
                measurements=[sr.Measurement(WEIGHT, tile.weight, _NUMBER)],
            )

    def _tracking(self, name: str) -> sr.TrackingIdentifier:
        return sr.TrackingIdentifier(uid=derived_uid(self._seed, name), identifier=" ".join(printable(name).split()))


def _observer(report: Report) -> sr.ObserverContext:
    name = str(report.model.get("name") or "unknown")
    version = report.provenance.versions.get("wsi-mivpg", wsi_mivpg.__version__)
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", name, version),
            name="WSI-MIVPG",
            manufacturer_name="WSI-MIVPG",
            model_name=printable(name),
        ),
    )


def _square(tile: TopTile, instance: DicomInstance) -> sr.ImageRegion:
    """Return a tile's outline in pixels of the slide's total pixel matrix, whose level-0 corner is (0, 0)."""
    right, bottom = tile.x + tile.size_l0_px, tile.y + tile.size_l0_px
    corners = [(tile.x, tile.y), (right, tile.y), (right, bottom), (tile.x, bottom), (tile.x, tile.y)]
    return sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array(corners, np.float32),
        source_image=sr.SourceImageForRegion(WHOLE_SLIDE_IMAGE, instance.instance_uid),
        pixel_origin_interpretation=sr.PixelOriginInterpretationValues.VOLUME,
    )


def _certainty(probability: float) -> list[sr.Measurement]:
    percent = round(probability * 100, 4)
    return [sr.Measurement(codes.DCM.CertaintyOfFinding, percent, _PERCENT)] if math.isfinite(percent) else []


def _text(name: Code | sr.CodedConcept, lines: Sequence[str]) -> sr.TextContentItem:
    value = "\r\n".join(printable(line).replace("\n", "\r\n") for line in lines)
    return sr.TextContentItem(name=name, value=value, relationship_type=sr.RelationshipTypeValues.CONTAINS)


def _add(group: _Group, item: sr.TextContentItem) -> None:
    group[0].ContentSequence.append(item)
