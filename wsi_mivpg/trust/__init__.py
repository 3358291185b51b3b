"""Whether a report may be believed: gates with calibrated thresholds, agreement of samples, confidence of each sentence."""
