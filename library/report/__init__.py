"""Pages that show a run: one HTML file each, readable anywhere, rebuilt from the files that the run has written.

`page.py` is the frame of every page: text, tables, escaping. `pictures.py` puts pictures into it, `plots.py` figures.
"""
