"""Whether a report can be trusted: does it depend on its slides, are they like the model's, do samples agree.

It knows the captioner and the rules of the evaluation; reports, evidence and pages are other rooms' work.
"""

from wsi_mivpg.trust.calibration import SAMPLING, calibrated, make_reference, observe, reference_of
from wsi_mivpg.trust.consensus import alternatives, choose
from wsi_mivpg.trust.distribution import pooled
from wsi_mivpg.trust.fields import FieldConfidence, JudgedField, fit_fields
from wsi_mivpg.trust.gates import Assessed, GateValue, Threshold, TrustGates, Written, assess
from wsi_mivpg.trust.numbers import numbers_in, unverified
from wsi_mivpg.trust.store import load_gates, write_gates

__all__ = [
    "SAMPLING",
    "Assessed",
    "FieldConfidence",
    "GateValue",
    "JudgedField",
    "Threshold",
    "TrustGates",
    "Written",
    "alternatives",
    "assess",
    "calibrated",
    "choose",
    "fit_fields",
    "load_gates",
    "make_reference",
    "numbers_in",
    "observe",
    "pooled",
    "reference_of",
    "unverified",
    "write_gates",
]
