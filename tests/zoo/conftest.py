"""The animals are read by `tests/test_zoo.py`; pytest itself must not import them."""

collect_ignore_glob = ["*.py"]
