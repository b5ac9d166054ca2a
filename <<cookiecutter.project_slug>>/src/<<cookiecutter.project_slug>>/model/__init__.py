"""Features, training and evaluation."""
