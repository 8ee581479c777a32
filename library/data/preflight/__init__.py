"""A look at a dataset before it is trained on: python -m library.data.preflight DATASET

It finds what a run would trip over, or would quietly learn: pictures that are damaged, doubled, too small or trained on
and held out at once; captions that are missing, blank or cut off; buckets that fill no batch; masks that nothing uses.
Nothing is changed.
"""
