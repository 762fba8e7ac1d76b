"""These are authors' files: the loader imports them, pytest must not."""

collect_ignore_glob = ["*.py"]
