"""What the numbers of a map count, by method."""

DEFAULT_METHOD = "gradient"
"""What a report shows unless another method is asked for."""
_UNITS = {
    "attention": "share of the attention",
    "gradient": "nats, to first order",
    "leave-out": "nats, its share of what its neighbourhood is worth",
}


def unit_of(method: str) -> str:
    """Return the unit of a method's weights, as legends and measurements name it."""
    return _UNITS[method]
