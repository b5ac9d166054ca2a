"""What judges, reports, packages and checks a model and its repository.

No stage and no service imports this package.
"""
