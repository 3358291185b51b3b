"""Side by side with peers. A package of its own, because pysbd installs one of this name, which would hide it."""
