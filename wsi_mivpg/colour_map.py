"""The colour maps that heatmaps are drawn in and legends are labelled with: viridis, and cividis for the viewer."""

STOPS = (
    "#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725",
)  # fmt: skip
"""Evenly spaced ``#rrggbb`` stops, from the lowest value to the highest."""

CIVIDIS = (
    "#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dec958", "#fee838",
)  # fmt: skip
"""Likewise; it looks the same to people who do not tell red from green."""

COLOUR_MAPS = {"viridis": STOPS, "cividis": CIVIDIS}
