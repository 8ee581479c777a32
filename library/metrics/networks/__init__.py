"""Feature networks whose weights are given by path, one a file. All are read safely, and none is ever downloaded."""
