"""The engine that the trainers, the network modules' host and the restoration system share; it knows no method by name."""
