"""Build, open, verify and smoke-test the bento."""
