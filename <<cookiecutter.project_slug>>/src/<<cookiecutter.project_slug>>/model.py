"""An estimator of your own. params.yaml names it by its class path:

    train:
      estimator: << cookiecutter.project_slug >>.model.RareCategories
      hyperparameters:
        estimator: {class: sklearn.ensemble.HistGradientBoostingClassifier, max_iter: 150}

docs/your-code.md has more.
"""
