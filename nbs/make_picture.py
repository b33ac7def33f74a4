"""The picture of the home page: figures that lesson 01 drew, side by side.  python nbs/make_picture.py [--check]"""

import base64, io, json, sys
from hashlib import sha256
from pathlib import Path

from PIL import Image

nbs = Path(__file__).resolve().parent
lesson = nbs / 'tutorials' / '01_first_verdict.ipynb'
target = nbs / 'images' / 'first_verdict.jpg'
wanted = ('show_cams(', 'plot_confusion(')  # the calls whose figures are taken, from left to right


def figure(cells, call):
    "The stored figure of the cell with this call."
    for c in cells:
        for o in c.get('outputs', []) if call in ''.join(c['source']) else []:
            for kind in ('image/jpeg', 'image/png'):
                if kind in o.get('data', {}):
                    return base64.b64decode(o['data'][kind])
    sys.exit(f'{lesson.name} holds no figure of {call[:-1]}: run it and store its outputs')


def figures():
    "The figures, as they are stored in the lesson."
    cells = json.loads(lesson.read_text(encoding='utf-8'))['cells']
    return [figure(cells, o) for o in wanted]


def beside(pictures):
    "Pictures side by side on white, each in the middle of its column."
    high = max(o.height for o in pictures)
    page = Image.new('RGB', (sum(o.width for o in pictures), high), 'white')
    left = 0
    for o in pictures:
        page.paste(o, (left, (high - o.height) // 2))
        left += o.width
    return page


if __name__ == '__main__':
    found = figures()
    mark = sha256(b''.join(found)).hexdigest().encode()
    known = Image.open(target).info.get('comment') if target.exists() else None
    if '--check' not in sys.argv and known != mark:
        target.parent.mkdir(exist_ok=True)
        page = beside([Image.open(io.BytesIO(o)).convert('RGB') for o in found])
        page.save(target, quality=88, optimize=True, comment=mark)
    elif known != mark:
        sys.exit('nbs/images/first_verdict.jpg is stale: run python nbs/make_picture.py')
