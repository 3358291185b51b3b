"""Cohorts: which slide belongs to which case, report and split; virtual biopsies with known truth."""
