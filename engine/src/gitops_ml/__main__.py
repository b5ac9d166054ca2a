"""`python -m gitops_ml` is the command `gitops-ml`."""

import sys

from gitops_ml.cli import main

sys.exit(main())
