"""Goes on with a text, one token after the other: python generate.py "The state" --tokens 200 --temperature 0.8"""

import argparse

import jax
from language_model import Decoder, load, tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description="Goes on with a text, one token after the other.")
    parser.add_argument("prompt", nargs="?", default="The ")
    parser.add_argument("--tokens", type=int, default=200, help="how many to write")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    given = parser.parse_args()

    read = tokenizer.encode(given.prompt) or tokenizer.encode("\n")
    decoder, key = Decoder(load()), jax.random.key(given.seed)
    for token in read:
        logits = decoder([token])
    written: list[int] = []
    for _ in range(given.tokens):
        key, drawn = jax.random.split(key)
        if given.temperature > 0:
            token = int(jax.random.categorical(drawn, logits[0] / given.temperature))
        else:
            token = int(logits[0].argmax())
        written.append(token)
        logits = decoder([token])
    print(tokenizer.decode([*read, *written]))


if __name__ == "__main__":
    main()
