"""How good pictures are: pure functions, and networks whose weights are given by path. `measure` has the metrics."""
