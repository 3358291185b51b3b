"""What `benchmarks/extract.py` measures: one driver per tool, each run in a process and an environment of its own."""
