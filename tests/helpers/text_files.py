"""Short texts that all differ, and the file that holds them."""

TEXTS = [f"Document {number} says that {number} times {number} is {number * number}." for number in range(80)]


def write(path, texts):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(f'{{"text": "{text}"}}' for text in texts), encoding="utf-8")
    return path
