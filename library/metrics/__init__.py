"""How good pictures are: pure functions on tensors, and wrappers around networks whose weights are given by path."""
