"""Augmentation of images and captions: crops, flips, colours, tag shuffling and dropout."""
