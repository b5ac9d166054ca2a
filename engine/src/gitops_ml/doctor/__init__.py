"""What is missing here and on GitHub, and what to do."""
