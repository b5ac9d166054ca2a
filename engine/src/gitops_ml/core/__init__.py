"""What everything stands on: settings, schema, paths, processes, git, DVC, errors."""
