"""Many trainings from one file: every dataset with every method and seed, one after another, on one model or several.

`jobs_file` reads what is asked for, `datasets` finds the pictures, `expansion` makes the jobs, `config` the options of
each, `ledger` keeps on disk what has become of them, `driver` gives them to an engine, `training` trains one. Nothing
here imports torch but `training`, `resident` and what an engine starts.
"""
