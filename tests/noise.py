"Photographs of noise for tests of what has nothing to do with cells."

import numpy as np
from PIL import Image


def photographs(folder, n=8, size=(80, 96)):
    "`n` photographs of two classes, in the folders a and b."
    rng = np.random.default_rng(0)
    for i in range(n):
        f = folder / ('a' if i % 2 else 'b') / f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(50, 200, size, dtype=np.uint8)).save(f)
    return folder
