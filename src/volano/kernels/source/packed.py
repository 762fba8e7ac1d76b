"""x"""
ENTRY: dict[str, str] = {}
