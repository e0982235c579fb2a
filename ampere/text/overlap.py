def merge_texts(first: str, second: str) -> str:
    return f"{first} {second}".strip()
