"""What the numbers of a map count, by method."""

_UNITS = {
    "attention": "share of the attention",
    "gradient": "nats, to first order",
    "leave-out": "nats lost without its neighbourhood",
}


def unit_of(method: str) -> str:
    """Return the unit of a method's weights, as legends and measurements name it."""
    return _UNITS[method]
