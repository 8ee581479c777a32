"""The images of a dataset: folders, captions, masks, metadata files, the validation split."""
