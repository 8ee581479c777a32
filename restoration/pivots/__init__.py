"""Training the two pivots: batches, objective, trainables, and their files."""
