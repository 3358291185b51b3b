"""`python -m benchmarks.instance_correlation`; see command.py, which spawned processes can import, as they cannot this."""

from .command import main

main()
