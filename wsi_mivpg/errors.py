"""Errors that a user can cause. Each message names the file, the value and the way out."""


class WsiMivpgError(Exception):
    """Base of every error that bad input can cause; the command line prints it without a traceback."""


class SlideError(WsiMivpgError):
    """A slide is missing, cannot be read, or is not a slide."""


class ResolutionError(SlideError):
    """A slide's microns per pixel are missing, absurd, or coarser than what is asked."""


class TissueError(WsiMivpgError):
    """Tissue cannot be found as asked: an unknown method, a malformed GeoJSON, or a segmenter that fails."""


class BagError(WsiMivpgError):
    """A feature bag is missing, incomplete, malformed, or was made with other settings."""


class EncoderError(WsiMivpgError):
    """A tile encoder is unknown, unavailable here, or its weights are not the expected ones."""


class ModelError(WsiMivpgError):
    """A report model cannot be loaded, or does not fit the bag that it is given."""


class RecipeError(WsiMivpgError):
    """A training recipe is malformed."""


class TrainingError(WsiMivpgError):
    """A training cannot go on: its loss or its gradient is not a number."""


class CohortError(WsiMivpgError):
    """A cohort manifest or its source of tiles is malformed."""


class OutputError(WsiMivpgError):
    """Something cannot be written where it was asked to be."""


class TextsError(WsiMivpgError):
    """Predictions or references cannot be read or do not match."""


class EvidenceError(WsiMivpgError):
    """Evidence for a report is missing, malformed, or cannot be had: its bag or its model is another now."""


class ViewError(WsiMivpgError):
    """The viewer cannot show what it was given, or what it needs is not installed."""


class PromptError(WsiMivpgError):
    """A schema of fields, its template, a question or a list of sections is malformed or not supported."""
