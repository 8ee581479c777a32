"""The loop, the objectives, the trainables and what surrounds a step."""
