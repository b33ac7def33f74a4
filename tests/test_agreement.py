"Whether two readings of wells agree: planted correlations and delays come back, nothing comes of nothing, and what does not fit is said."

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from celldeath_nb.plates.agreement import agree, plot_agreement


def planted(delay=3.0, shared=0.6, noise=0.3, effect=4.0, days=3, each=6, hours=range(8), seed=0):
    "Two readings of the same wells; the second sees the drug `delay` hours later, `shared` is what a well adds to both."
    rng = np.random.default_rng(seed)
    rows = []
    for e in range(days):
        for t in ('DMSO', 'CPT'):
            for w in range(each):
                own = rng.normal(0, shared)
                for h in hours:
                    x, y = (
                        effect * (t == 'CPT') * np.clip(h - o, 0, 2) / 2 + own + rng.normal(0, noise)
                        for o in (0, delay)
                    )
                    row = dict(experiment=f'N{e + 1}', well=f'{"AB"[t == "CPT"]}{w + 1}', treatment=t, hour=h)
                    rows.append(row | dict(score=x, dead=y))
    t = pd.DataFrame(rows)
    return t.drop(columns='dead'), t.drop(columns=['score'])


def pairs(r, n, seed, days=1):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n * days, 2)) @ np.linalg.cholesky([[1, r], [r, 1]]).T
    t = pd.DataFrame(dict(well=[f'A{k + 1}' for k in range(n)] * days, score=z[:, 0], v=z[:, 1]))
    if days > 1:
        t['experiment'] = np.repeat([f'N{k}' for k in range(days)], n)
    return t.drop(columns='v'), t.drop(columns='score')


@pytest.mark.parametrize('delay', [0, 3])
def test_a_delayed_assay_is_found_to_be_later(delay):
    a = agree(*planted(delay), n_boot=300)
    d = a.delays.iloc[0]
    assert d.both >= 15 and abs(d.delay - delay) < 0.7 and d.low <= d.delay <= d.high
    assert (d.low > 1) == (delay == 3) and (delay or d.low <= 0.3)
    assert 'later' in ' '.join(a.sentences) or delay == 0


def test_false_alarms_are_as_promised():
    called = []
    for seed in range(40):
        a = agree(*planted(effect=0, seed=seed, shared=0.3), n_boot=20, alpha=0.05)
        called += [a.first[k].notna().mean() for k in ('hour_score', 'hour_assay')]
    assert 0.02 < np.mean(called) < 0.08


def test_the_correlation_is_spearmans_and_its_interval_holds_it():
    x, y = pairs(0.8, 10, 1)
    assert np.isclose(agree(x, y, n_boot=50).rho.rho[0], spearmanr(x.score, y.v).statistic)
    truth = 6 / np.pi * np.arcsin(0.4)
    got = [agree(*pairs(0.8, 8, s, days=3), n_boot=150, seed=s).rho.iloc[0] for s in range(60)]
    assert np.mean([o.low <= truth <= o.high for o in got]) > 0.88
    assert abs(np.mean([o.rho for o in got]) - truth) < 0.05


def test_nothing_comes_of_nothing():
    got = [agree(*pairs(0, 16, s), n_boot=150, seed=s).rho.iloc[0] for s in range(60)]
    assert np.mean([(o.low > 0) or (o.high < 0) for o in got]) < 0.12


def test_two_arms_alone_are_no_agreement_within_arms():
    rng = np.random.default_rng(0)
    t = pd.DataFrame(dict(well=[f'A{k + 1}' for k in range(24)], treatment=['DMSO', 'CPT'] * 12))
    gain = 5.0 * (t.treatment == 'CPT')
    a = agree(t.assign(score=gain + rng.normal(size=24)), t.assign(v=gain + rng.normal(size=24)))
    r = a.rho.set_index('of')
    assert r.rho['all wells'] > 0.6 and r.low['within arms'] < 0 < r.high['within arms']
    assert 'was not shown' in a.sentences[1]


def test_days_are_drawn_first():
    "Day shifts shared by both readings make wells of a day alike: drawing wells alone would be too sure."
    rng = np.random.default_rng(3)
    day = np.repeat(rng.normal(0, 3, 4), 12)
    t = pd.DataFrame(dict(experiment=np.repeat(list('abcd'), 12), well=np.tile(np.arange(1, 13), 4)))
    x, y = t.assign(score=day + rng.normal(size=48)), t.assign(v=day + rng.normal(size=48))
    by_day = agree(x, y).rho.iloc[0]
    t = t.assign(well=t.experiment + t.well.astype(str)).drop(columns='experiment')
    by_well = agree(t.assign(score=x.score), t.assign(v=y.v)).rho.iloc[0]
    assert by_day.rho == by_well.rho and by_day.high - by_day.low > 1.3 * (by_well.high - by_well.low)


def test_limits_of_agreement_are_those_of_bland_and_altman():
    rng = np.random.default_rng(4)
    p = rng.uniform(5, 60, 400)
    logit = np.log(p / (100 - p))
    d = 0.5 + rng.normal(0, 0.3, 400)
    t = pd.DataFrame(dict(well=np.arange(1, 401)))
    q = 100 / (1 + np.exp(-(logit + d)))
    ba = agree(t.assign(score=p), t.assign(v=q), scale='logit').bland_altman.set_index('of')
    assert np.allclose(ba.value, [d.mean(), d.mean() - 1.96 * d.std(ddof=1), d.mean() + 1.96 * d.std(ddof=1)])
    for k, truth in (('mean difference', 0.5), ('lower limit', 0.5 - 0.588), ('upper limit', 0.5 + 0.588)):
        assert ba.low[k] < truth < ba.high[k] and ba.high[k] - ba.low[k] < 0.15


def test_wells_are_matched_by_what_both_tell():
    x, y = pairs(0.5, 12, 0)
    a = agree(x, y.assign(well=y.well.str.lower().str.replace('a', 'a0')).sample(frac=1, random_state=1), n_boot=20)
    assert np.isclose(a.rho.rho[0], spearmanr(x.score, y.v).statistic) and not len(a.unmatched)
    a = agree(x.assign(hour=1, plate='P'), y.assign(plate='P', n=7), n_boot=20)
    assert a.wells.shape[0] == 12 and 'plate, well' in a.notes[0]
    two = pd.concat([x.assign(treatment='CPT'), x.assign(treatment='DMSO')])
    a = agree(two, pd.concat([y.assign(treatment=t) for t in ('CPT', 'DMSO')]), n_boot=20)
    assert len(a.wells) == 24 and a.rho.wells[0] == 24
    a = agree(x.assign(experiment='N1'), y.assign(replicate='N1'), n_boot=20)
    assert a.notes[0] == 'Wells were matched by experiment, well.'
    a = agree(x[:9], y[3:], n_boot=20)
    assert len(a.wells) == 6 and sorted(a.unmatched.only_in) == ['assay'] * 3 + ['scores'] * 3
    assert '3 rows of the' in a.notes[1] and '3 rows of the' in repr(a)


def test_mistakes_are_sentences():
    x, y = pairs(0.5, 12, 0)
    bad = [
        (x.drop(columns='well'), y, {}, "no column 'well'"),
        (x, y, dict(value='nothing'), "no column 'nothing'"),
        (x, y.assign(w=1.0), {}, 'Say value='),
        (x, y.assign(v='a'), dict(value='v'), 'holds no numbers'),
        (x, y.assign(v=np.inf), {}, 'endless'),
        (x, pd.concat([y, y]), {}, 'several rows of one well'),
        (x, y.assign(well='H' + y.well.str[1:]), {}, 'Do both spell them alike'),
        (x[:3], y, {}, 'takes 4 or more'),
        (x.assign(treatment='CPT'), y.assign(treatment='DMSO'), {}, 'plate maps is wrong'),
        (x, y.assign(well=None), {}, 'name no well'),
        (x, y, dict(scale='log'), "Choose 'standard' or 'logit'"),
        (x, y, dict(scale='logit'), 'is no share'),
    ]
    for a, b, more, said in bad:
        with pytest.raises(ValueError, match=said.replace('(', r'\(')):
            agree(a, b, **more)
    a = agree(x, y, n_boot=20)
    assert a.first is None and any('No first hours' in o for o in a.notes)
    flat = agree(x, y.assign(v=1.0), n_boot=20)
    assert np.isnan(flat.rho.rho[0])


def test_too_few_vehicle_wells_give_no_hours_and_say_so():
    x, y = planted(days=1, each=3)
    a = agree(x, y, n_boot=20)
    assert a.first is None and 'vehicle wells' in ' '.join(a.notes)


def test_figure_says_what_it_shows():
    a = agree(*planted(days=2, each=4), n_boot=50, names=('net', 'flow'))
    axes = plot_agreement(a)
    assert len(axes) == 3 and axes[0].get_xlabel() == 'net' and '16 wells' in axes[0].get_title()
    assert len(plot_agreement(agree(*pairs(0.5, 12, 0), n_boot=20))) == 2
