"""Does instance correlation help? An experiment where the truth is known; see README.md beside this file.

Run it with `python -m benchmarks.instance_correlation` from the repository's root.
"""
