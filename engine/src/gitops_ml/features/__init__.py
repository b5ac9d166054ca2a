"""From a row to the numbers that the model sees."""
