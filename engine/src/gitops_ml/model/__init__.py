"""Train, export, predict, evaluate."""
