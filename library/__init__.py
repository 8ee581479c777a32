"""The engine that the trainers and the restoration system share; it knows no method by name."""
