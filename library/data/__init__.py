"""From image files to batches: folders, captions, buckets, caches, and the order in which samples are seen."""
