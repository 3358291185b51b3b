"""The colour map that heatmaps are drawn in and legends are labelled with (viridis)."""

STOPS = (
    "#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725",
)  # fmt: skip
"""Evenly spaced ``#rrggbb`` stops, from the lowest value to the highest."""
