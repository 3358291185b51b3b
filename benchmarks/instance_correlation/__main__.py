"""`python -m benchmarks.instance_correlation`. All is in command.py: spawned processes cannot import this module."""

from .command import main

main()
