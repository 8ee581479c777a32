"""Feature networks whose weights are given by path, one a room. All are read safely, and none is ever downloaded."""
