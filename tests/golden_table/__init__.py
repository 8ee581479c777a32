"""Our figures beside those recorded from an unmodified sd-scripts: `python -m tests.golden_table` writes the table.

A room here compares golden files of one kind; `rooms.py` lists its functions.
"""
