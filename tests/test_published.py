"The paper's numbers to the digit, what arithmetic says of them, and that no notebook of nbs/paper types one from memory."

import itertools, json, re
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from celldeath_nb.studies import published as p

root = Path(__file__).resolve().parents[1]


# ---- values to the digit


def test_claims_to_the_digit():
    c = p.claims().set_index('id')
    assert len(c) == 39 and c.index.is_unique and (c.place != '').all() and (c.quantity != '').all()
    want = dict(
        images_all=58596,
        images_1h=15224,
        images_2h=15312,
        images_3h=15032,
        images_0h=13028,
        test_tiles_1h=4188,
        human_pre=48.80,
        human_post=46.40,
        cvsd_valid=98.18,
        cvsd_test=96.58,
        cvsd_test_text=96.56,
        cvsd_valid_best=98.67,
        cvsd_test_best=97.23,
        cvsd_fp=65,
        cvsd_fn=52,
        avsa_imagenet_test=87,
        loo_pc3_test=53,
        loo_u2os_test=64,
        resnet34_valid=98,
        resnet34_test=95,
        overfit_epoch=280,
        ihc_ips1_h2ax=2.2e-16,
        ihc_mcf7_a=4.89e-7,
        ihc_mcf7_b=2.22e-16,
        flow_ips1=0.025,
        deadnet_acc=94.5,
    )
    assert {k: c.value[k] for k in want} == want
    assert {k: c.spread[k] for k in c.index[c.spread.notna()]} == dict(
        human_pre=3.03, human_post=3.57, cvsd_valid=0.33, cvsd_test=0.24, cvsd_test_text=0.24
    )
    assert (c.n[['cvsd_valid', 'human_pre', 'avsa_imagenet_test', 'flow_mcf7']] == [5, 5, 3, 3]).all()
    for i in c.index[c.printed.str.fullmatch(r'[\d,.]+(e-\d+)?')]:
        assert float(c.printed[i].replace(',', '')) == c.value[i], i
    assert c.value.images_all == c.value[['images_0h', 'images_1h', 'images_2h', 'images_3h']].sum()
    assert round(100 * (1 - (c.value.cvsd_fp + c.value.cvsd_fn) / c.value.test_tiles_1h), 3) == c.value.cvsd_matrix_acc


def test_claims_of_unknown_ids():
    assert p.claims(['cvsd_test', 'human_pre']).id.tolist() == ['cvsd_test', 'human_pre']
    with pytest.raises(ValueError, match='Near it: cvsd_test'):
        p.claims('cvsd_tst')
    with pytest.raises(ValueError, match='claims\\(\\).id'):
        p.claims('zzzz')


# ---- arithmetic


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.data())
def test_grim_praises_what_is_possible(n, data):
    k = data.draw(st.integers(0, n))
    found = p.grim(f'{100 * k / n:.2f}', n)
    assert found.verdict == 'possible' and abs(100 * found.number / n - 100 * k / n) <= 0.0101


def test_grim_is_brute_force():
    for n in (7, 28, 50, 99):
        assert {v for v in range(10001) if p.grim(f'{v / 100:.2f}', n).verdict == 'possible'} == {
            v for v in range(10001) for k in range(n + 1) if abs(100 * k / n - v / 100) <= 0.005 + 1e-9
        }
    assert p.grim('0.52', 28, 1).verdict == 'impossible' or p.grim('0.52', 28, 1).number == 14.5
    assert p.grim('96.58', 20940).verdict == 'cannot tell'
    with pytest.raises(ValueError, match='no plain decimal'):
        p.grim('about 50', 28)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 50), min_size=3, max_size=6))
def test_grimmer_praises_what_is_possible(xs):
    x = np.array(xs)
    t = p.grimmer(f'{2 * x.mean():.4f}', f'{2 * x.std(ddof=1):.4f}', len(x), 50)
    assert t.prints[0] == 'rounded' and abs(t.squares[0] - ((x - x.mean()) ** 2).sum()) < 0.05 * max(
        1, t.squares[0] / 100
    )


def test_whole_scores_is_brute_force():
    have = {(sum(x), sum(o * o for o in x)) for x in itertools.product(range(7), repeat=3)}
    for total in range(20):
        for squares in range(120):
            assert p._whole_scores(3, total, squares, 6) == ((total, squares) in have), (total, squares)


def test_the_people_of_the_paper():
    pre, post = p.grimmer('48.80', '3.03', 5, 50), p.grimmer('46.40', '3.57', 5, 50)
    assert (pre.kind.tolist(), pre.prints.tolist(), post.prints.tolist()) == (
        ['sd (n-1)', 'sd (n)', 'sem'],
        ['rounded', 'no', 'no'],
        ['cut off', 'no', 'no'],
    )
    assert (
        round(pre.squares[0], 6) == 9.2
        and round(post.squares[0], 6) == 12.8
        and round(pre.exact[0], 4) == 3.0332
        and round(post.exact[0], 4) == 3.5777
    )
    chi = [p.binomial_scatter(s, 5, 50) for s in (9.2, 12.8)]
    assert [round(o.number, 3) for o in chi] == [0.736, 1.024] and [round(o.limit, 3) for o in chi] == [0.053, 0.094]
    with pytest.raises(ValueError, match='need not be asked for'):
        p.grimmer('48.81', '3.03', 5, 50)


def test_samuelson():
    a, b = p.samuelson(98.18, 0.33, 98.67, 5), p.samuelson(96.58, 0.24, 97.23, 5)
    assert (a.verdict, b.verdict) == ('possible', 'impossible') and (
        round(a.number, 3),
        round(b.number, 3),
        round(b.limit, 4),
    ) == (1.485, 2.708, 1.7889)
    assert 'a standard error it may be' in b.says and 'nor can it' in p.samuelson('50.0', '0.1', '60.0', 5).says
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 9):  # no sample is ever condemned
        for _ in range(50):
            x = rng.lognormal(0, 1.5, n)
            assert (
                p.samuelson(f'{x.mean():.3f}', f'{x.std(ddof=1) + 5e-4:.3f}', f'{x.max():.3f}', n).verdict == 'possible'
            )
    with pytest.raises(ValueError, match='two values or more'):
        p.samuelson('1.0', '0.0', '1.0', 5)


def test_counts_and_limits():
    assert (
        p.errors_make('97.23', 117, 4188).verdict == 'impossible'
        and p.errors_make('97.23', 116, 4188).verdict == 'possible'
        and p.errors_make('97.21', 117, 4188).verdict == 'possible'
    )
    assert (
        p.whole_parts(15224).number == 3806
        and p.whole_parts(11036).verdict == 'possible'
        and p.whole_parts(7725).verdict == 'impossible'
    )
    assert [p.printing_limit(o).verdict for o in ('2.2e-16', '2.22e-16', '2.3e-16', '2.220e-16')] == [
        'a limit',
        'a limit',
        'possible',
        'a limit',
    ]


def test_check_claims():
    t = p.check_claims()
    assert set(t.check) == {
        'whole',
        'range',
        'grim',
        'errors',
        'samuelson',
        'printed twice',
        'grimmer',
        'scatter',
        'printing limit',
    }
    assert (
        set(t.verdict) == {'possible', 'impossible', 'cannot tell', 'a limit'}
        and (t.verdict == 'impossible').sum() == 3
    )
    known = set(p.claims().id)
    assert all(set(o.split()) <= known for o in t.ids) and t.says.str.endswith('.').all()


# ---- the authors' records


def test_author_records():
    r = p.author_records()
    t = r.reports.set_index('report')
    assert len(t) == 9 and set(t.valid_tiles) == {2444} and set(t.test_tiles) == {3004}
    assert r.settings['trained_and_validated'] + r.settings['test'] == 15224 and round(0.2 * 12220) == 2444
    assert t.test_right.tolist() == [2973, 2961, 2965, 2964, 2973, 2975, 2827, 2876, 2832]
    assert np.round(100 * t.valid, 2).tolist() == [99.35, 98.24, 98.20, 98.85, 99.06, 98.90, 93.90, 95.25, 94.27]
    assert (abs(t.valid - t.said_accuracy)[t.classes == 2] < 6e-5).all() and (
        t.said_accuracy[t.classes == 14] == 1
    ).all()
    assert all(o.shape == (k, k) and list(o.index) == list(o.columns) for o, k in zip(r.matrices.values(), t.classes))
    assert r.histories.groupby('run').size().tolist() == [1, 50, 50]
    assert round(r.histories[r.histories.run == 'all lines, body frozen'].seconds.sum() / 3600, 2) == 2.96


def test_author_leak():
    t = p.author_leak().set_index('classes')
    assert (
        np.round(t.records, 2).tolist() == [98.77, 99.03]
        and t.paper.tolist() == [96.58, 87]
        and round(t.records_sd[2], 2) == 0.18
        and t.runs.tolist() == [5, 1]
    )


# ---- beside

made = pd.DataFrame(
    [
        ('CvsD', 'valid', 'accuracy', 0.91, 5, 0.94),
        ('CvsD', 'test', 'accuracy', 0.84, 5, 0.88),
        ('hour_1', 'all', 'tiles', 640.0, 1, 640.0),
        ('long_400', '', 'turning_point', 271.0, 1, 271.0),
    ],
    columns=['setting', 'split', 'metric', 'mean', 'n', 'best'],
).assign(low=0.8, high=0.95, recipe='quick', simulated=True)


def test_beside_claim():
    t = p.beside_claim(made).set_index('id')
    assert t.ours[['cvsd_valid', 'cvsd_test', 'cvsd_test_best', 'images_1h', 'overfit_epoch']].round(6).tolist() == [
        91,
        84,
        88,
        640,
        271,
    ]
    assert (
        t.difference['overfit_epoch'] == -9
        and t.low['cvsd_test'] == 80
        and t.simulated.all()
        and (t.recipe == 'quick').all()
    )
    lean = p.beside_claim(made.drop(columns=['split', 'low', 'high', 'recipe'])[1:2], 'cvsd_test').iloc[
        0
    ]  # no split: the test
    assert lean.ours == 84 and np.isnan(lean.low)
    assert 'cvsd_valid' not in set(p.beside_claim(made[1:2].drop(columns='split')).id)
    before = made.copy()
    p.beside_claim(made)
    pd.testing.assert_frame_equal(made, before)


def test_no_verdict_on_simulated_photographs():
    t = p.beside_claim(made)
    words = ' '.join(
        map(
            str, [*t.columns, *t.drop(columns=['place', 'setting', 'quantity', 'paper_spread_kind']).to_numpy().ravel()]
        )
    ).lower()
    ax = p.plot_beside(made)
    words += ' '.join(o.get_text() for o in [*ax.texts, *ax.get_yticklabels(), *ax.get_legend().get_texts()]).lower()
    assert not re.search('reproduc|confirm|agree|differs|fail|better|worse|match|verdict|consistent', words)
    assert 'simulated' in words and 'not said' in words


bad = [
    (lambda: p.beside_claim(made, 'cvsd_tst'), 'Near it'),
    (lambda: p.beside_claim(made, 'loo_pc3_test'), "setting 'without_PC3'; they hold"),
    (lambda: p.beside_claim(made, ['cvsd_test', 'wells']), "beside 'wells'"),
    (lambda: p.beside_claim(made.drop(columns='mean')), "no column 'mean'"),
    (lambda: p.beside_claim(made.drop(columns='simulated')), 'assign(simulated=False)'),
    (lambda: p.beside_claim('results.csv'), 'must be a table'),
    (lambda: p.beside_claim(made.assign(mean=91.0)), 'Divide percentages by 100'),
    (lambda: p.beside_claim(pd.concat([made, made])), 'Keep one level'),
    (lambda: p.beside_claim(made.assign(metric='auroc')), "metrics ['auroc']"),
    (lambda: p.beside_claim(made.assign(setting='mine')), "they hold ['mine']"),
    (lambda: p.plot_beside(made, 'images_1h'), 'None of these claims is in percent'),
]


@pytest.mark.parametrize('f,said', bad, ids=[s for _, s in bad])
def test_refused_in_words(f, said):
    with pytest.raises(ValueError) as e:
        f()
    assert said in str(e.value) and '!' not in str(e.value)


# ---- numbers in the prose of nbs/paper


def numbers(text):
    "Decimals, percentages and numbers with a comma in a text, without code, links and addresses."
    text = re.sub(r'`[^`]*`|\$[^$]*\$|\]\([^)]*\)|https?://\S+|\bdoi\s*\S+|e\d{7}|\d+\(\d+\)', ' ', text)
    return [o.replace(',', '') for o in re.findall(r'(?<![\w.])(\d{1,3}(?:,\d{3})+|\d+\.\d+|\d+(?= ?%))(?!\w)', text)]


def typed_from_memory(nb, known):
    "Numbers in markdown cells that are neither among the claims nor in an output above."
    seen, res = '', []
    for i, c in enumerate(nb['cells']):
        if c['cell_type'] == 'code':
            seen += ' '.join(re.sub(r'"image/\w+": "[^"]*"', '', json.dumps(o)) for o in c['outputs'])
        else:
            res += [
                f'cell {i}: {o}'
                for o in numbers(''.join(c['source']))
                if o not in known and not re.search(rf'(?<![\d.]){re.escape(o)}', seen.replace(',', ''))
            ]
    return res


def known_numbers():
    c = p.claims()
    return set(re.findall(r'\d+(?:\.\d+)?', ' '.join(map(str, c.to_numpy(object).ravel())).replace(',', ''))) | {
        f'{o:.2f}' for o in c.spread.dropna()
    }


@pytest.mark.parametrize('path', sorted((root / 'nbs' / 'paper').glob('*.ipynb')), ids=lambda o: o.stem)
def test_prose_of_the_paper_notebooks(path):
    assert typed_from_memory(json.loads(path.read_text()), known_numbers()) == []


def test_the_lint_can_fail():
    cell = dict(cell_type='markdown', source='It reached 96.58 % and 91.37 % of 4,188 tiles (`0.123`).')
    assert typed_from_memory(dict(cells=[cell]), known_numbers()) == ['cell 0: 91.37']
    assert (
        typed_from_memory(dict(cells=[dict(cell_type='code', outputs=[dict(text='91.37')]), cell]), known_numbers())
        == []
    )
