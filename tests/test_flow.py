"Flow cytometry: files of many makers and of none, spill, gates, quadrants, and the truth of simulated tubes."

import shutil, subprocess, sys, tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

flowio = pytest.importorskip('flowio', reason='the extra flow is not installed')
pytest.importorskip('flowutils', reason='the extra flow is not installed')

from celldeath_nb.assays.fcs import find_channel, guess_tubes, read_fcs, read_tubes
from celldeath_nb.assays.flow import compare_quadrants, plot_controls, plot_quadrants, quadrant_gates, quadrants
from celldeath_nb.assays.gates import above_peak, find_valley, gate_cells, gate_singlets
from celldeath_nb.assays.spill import compensate, scale, spillover
from celldeath_nb.files import write_csv
from celldeath_nb.simulate.tubes import (
    DYES,
    MARKERS,
    POPULATIONS,
    SPILL,
    death_shares,
    simulate_tube,
    simulate_tubes,
    write_fcs,
    write_tubes,
)

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fcs(
    path,
    columns,
    kind='I',
    bits=16,
    order='4,3,2,1',
    version='FCS3.0',
    part='/',
    extra=None,
    place='both',
    off=0,
    drop=(),
    trail=b'',
    marker=None,
):
    "An FCS file made by hand: `columns` is a dict of names to stored values; `place` says where offsets are given; `off` is added to the end of the data."
    x = list(columns.values())
    bits = [bits] * len(x) if isinstance(bits, int) else bits
    end = '>' if order.startswith(('4', '2', '8')) else '<'
    if kind == 'I':
        cells = [np.asarray(v).astype(f'{end}u8').view(np.uint8).reshape(-1, 8) for v in x]
        rows = np.concatenate([c[:, 8 - b // 8 :] if end == '>' else c[:, : b // 8] for c, b in zip(cells, bits)], 1)
        data = rows.tobytes()
    else:
        data = np.stack(x, 1).astype(f'{end}f{4 if kind == "F" else 8}').tobytes()
    kw = {'$PAR': len(x), '$TOT': len(x[0]), '$MODE': 'L', '$DATATYPE': kind, '$BYTEORD': order, '$NEXTDATA': 0}
    for i, (name, b) in enumerate(zip(columns, bits), 1):
        kw |= {
            f'$P{i}N': name,
            f'$P{i}B': b if kind == 'I' else 32 if kind == 'F' else 64,
            f'$P{i}R': 2**b if kind == 'I' else 262144,
            f'$P{i}E': '0,0',
        }
    kw |= extra or {}
    for k in drop:
        kw.pop(k, None)
    start = 4096
    if place in ('both', 'text'):
        kw |= {'$BEGINDATA': start, '$ENDDATA': start + len(data) - 1 + off}
    text = part + part.join(f'{k}{part}{str(v).replace(part, 2 * part)}' for k, v in kw.items()) + part
    raw = text.encode('latin-1')
    assert 256 + len(raw) <= start
    places = [256, 256 + len(raw) - 1]
    header = [start, start + len(data) - 1 + off] if place in ('both', 'header') else [0, 0]
    head = f'{version}    '.encode() + b''.join(b'%8d' % o for o in places + header + [0, 0])
    path.write_bytes(head.ljust(256) + raw.ljust(start - 256) + data + trail)
    return path


def values(n=50, top=1000, k=3, seed=0):
    return {f'C{i}': np.random.default_rng([seed, i]).integers(0, top, n) for i in range(k)}


# files


@pytest.mark.parametrize('bits', [8, 16, 24, 32, 40, 64, [8, 16, 32], [24, 16, 8]])
@pytest.mark.parametrize('order', ['1,2,3,4', '4,3,2,1'])
def test_integers_of_every_width(tmp_path, bits, order):
    v = values(top=200)
    e = read_fcs(fcs(tmp_path / 'a.fcs', v, bits=bits, order=order))
    assert np.array_equal(e.to_numpy(), np.stack(list(v.values()), 1)) and list(e) == list(v)


@pytest.mark.parametrize('kind', ['F', 'D'])
@pytest.mark.parametrize('order', ['1,2,3,4', '4,3,2,1'])
def test_floats(tmp_path, kind, order):
    v = {k: x / 7 - 20 for k, x in values().items()}
    e = read_fcs(fcs(tmp_path / 'a.fcs', v, kind, order=order))
    want = np.stack(list(v.values()), 1).astype('f4' if kind == 'F' else 'f8')
    assert np.array_equal(e.to_numpy(), want.astype(float))


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(version='FCS2.0', place='header'),
        dict(place='text'),
        dict(place='header'),
        dict(off=1),
        dict(off=1, version='FCS3.1'),
        dict(version='FCS3.2'),
        dict(trail=b'CRC00000000'),
        dict(order='2,1'),
    ],
    ids=str,
)
def test_liberties_with_offsets(tmp_path, kwargs):
    v = values()
    assert np.array_equal(read_fcs(fcs(tmp_path / 'a.fcs', v, **kwargs)).to_numpy(), np.stack(list(v.values()), 1))


def test_header_and_text_disagree_and_the_floats_tell(tmp_path):
    v = {k: x / 7 + 1 for k, x in values().items()}
    p = fcs(tmp_path / 'a.fcs', v, 'F')
    for wrong in (b'    4095    4694', b'    4097    4696', b'    4060    4659'):
        b = p.read_bytes()
        (tmp_path / 'b.fcs').write_bytes(b[:26] + wrong + b[42:])
        assert np.allclose(read_fcs(tmp_path / 'b.fcs').to_numpy(), np.stack(list(v.values()), 1), rtol=1e-6)


@pytest.mark.parametrize('part', ['/', '|', '\\', '*', '^', '?', '+', '.', '\x0c', '\t', '!', '#', '\x1e'])
def test_whatever_parts_the_keywords(tmp_path, part):
    e = read_fcs(
        fcs(tmp_path / 'a.fcs', values(), part=part, extra={'$P1S': f'CD3{part}CD4', '$CYT': 'my (machine) [1]'})
    )
    assert (
        e.attrs['channels'][0]['marker'] == f'CD3{part}CD4'.replace('\x0c', '').replace('\t', '').replace('\x1e', '')
        and e.attrs['cytometer'] == 'my (machine) [1]'
    )


def test_empty_values_and_old_letters(tmp_path):
    p = fcs(tmp_path / 'a.fcs', values(), extra={'$INST': 'EMPTY', '$OP': 'Jos\xe9'})
    b = p.read_bytes()
    text = b[256:4096].rstrip().replace(b'/EMPTY/', b'//')
    p.write_bytes(b[:18] + b'%8d' % (255 + len(text)) + b[26:256] + text.ljust(3840) + b[4096:])
    e = read_fcs(p)
    assert len(e) == 50 and e.attrs['keywords']['$INST'] == '' and e.attrs['keywords']['$OP'] == 'Jos\xe9'


def test_supplement_of_keywords(tmp_path):
    more = b'/$P2S/7-AAD/EXPERIMENT/one/'
    p = fcs(tmp_path / 'a.fcs', values(), extra={'$BEGINSTEXT': 4396, '$ENDSTEXT': 4396 + len(more) - 1}, trail=more)
    e = read_fcs(p)
    assert (
        len(p.read_bytes()) == 4396 + len(more)
        and find_channel(e, '7-AAD') == 'C1'
        and e.attrs['keywords']['EXPERIMENT'] == 'one'
    )


def test_names_that_come_twice_or_not_at_all(tmp_path):
    v = values(k=4)
    p = fcs(tmp_path / 'a.fcs', v, extra={'$P1N': 'FL1-A', '$P2N': 'FL1-A', '$P3N': 'FL1-A', '$P4N': ' '})
    assert list(read_fcs(p)) == ['FL1-A', 'FL1-A (2)', 'FL1-A (3)', 'P4']


def test_bits_beyond_the_range_are_cut(tmp_path):
    e = read_fcs(fcs(tmp_path / 'a.fcs', dict(A=[1023, 1024, 2049, 5]), extra={'$P1R': 1000}))
    assert e.A.tolist() == [1023, 0, 1, 5]


@pytest.mark.parametrize(
    'pne, want',
    [
        ('4,1', [1, 10, 100]),
        ('4.0,0.1', [0.1, 1, 10]),
        (' 4.0, 0', [1, 10, 100]),
        ('0,0', [0, 256, 512]),
        ('2,10', [10, 10**1.5, 100]),
    ],
)
def test_logarithmic_amplifiers(tmp_path, pne, want):
    p = fcs(tmp_path / 'a.fcs', dict(A=[0, 256, 512]), extra={'$P1R': 1024, '$P1E': pne})
    assert np.allclose(read_fcs(p).A, want) and read_fcs(p, scaled=False).A.tolist() == [0, 256, 512]
    assert np.allclose(flowio.FlowData(p).as_array()[:, 0], want) or pne == ' 4.0, 0'


def test_gain_and_time_after_the_standard(tmp_path):
    v = {'FSC-A': [10, 20], 'Time': [100, 200]}
    p = fcs(tmp_path / 'a.fcs', v, extra={'$P1G': '2.0', '$P2G': '0.01', '$TIMESTEP': '0.01'})
    assert read_fcs(p).to_numpy().tolist() == [[5, 1], [10, 2]] == flowio.FlowData(p).as_array().tolist()


def test_floats_have_no_amplifier_even_if_they_say_so(tmp_path):
    p = fcs(tmp_path / 'a.fcs', dict(A=[1.0, 2.0]), 'F', extra={'$P1E': '4.0,1.0'})
    assert read_fcs(p).A.tolist() == [1, 2]


@quick
@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_written_and_read_identical(tmp_path, n, k, seed):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, k)) * 10.0 ** rng.integers(-5, 20, (n, k))).astype(np.float32)
    df = pd.DataFrame(x, columns=[f'Ch/{i}-A' for i in range(k)])
    back = read_fcs(write_fcs(df, tmp_path / 'x.fcs', {'Ch/0-A': 'a/b'}))
    assert (
        np.array_equal(back.to_numpy(), x) and list(back) == list(df) and back.attrs['channels'][0]['marker'] == 'a/b'
    )


def test_attrs_hold_only_plain_things(tmp_path):
    e = read_fcs(write_fcs(simulate_tube(n=100)[0], tmp_path / 'x.fcs', MARKERS, SPILL))
    both = pd.concat([e, e], ignore_index=True)  # pandas compares attrs here
    assert both.attrs['file'] == 'x.fcs' and len(both) == 200


# damage and malice


def refuses(path, words, **kwargs):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=words) as e:
            read_fcs(path, **kwargs)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    assert path.name in str(e.value) and '\n' not in str(e.value)


@pytest.mark.parametrize(
    'extra, words',
    [
        ({'$TOT': 10**12}, 'torn or lies about its size'),
        ({'$TOT': '9' * 400}, 'number of events'),
        ({'$TOT': -5}, 'number of events'),
        ({'$TOT': 'many'}, 'number of events'),
        ({'$TOT': 0}, 'no events'),
        ({'$PAR': 10**9}, 'number of channels'),
        ({'$PAR': 0}, 'no channels'),
        ({'$PAR': 'x'}, 'number of channels'),
        ({'$PAR': 4000}, 'range of channel 4'),
        ({'$P1R': '1' + '0' * 400}, r'\$P1R'),
        ({'$P1R': 'nan'}, r'\$P1R'),
        ({'$P1R': '1e999'}, r'\$P1R'),
        ({'$P1R': -1}, r'\$P1R'),
        ({'$P1R': 0}, r'\$P1R'),
        ({'$P2R': 'wide'}, r'\$P2R'),
        ({'$P1E': '400,1'}, 'decades'),
        ({'$P1E': 'x,y'}, r'\$P1E'),
        ({'$P1B': 10}, '10 bits'),
        ({'$P1B': 10**6}, r'\$P1B'),
        ({'$P1B': 0}, '0 bits'),
        ({'$P1B': '*'}, r'\$P1B'),
        ({'$DATATYPE': 'A'}, 'type'),
        ({'$DATATYPE': 'Q'}, 'type'),
        ({'$MODE': 'C'}, 'mode'),
        ({'$BYTEORD': '3,4,1,2'}, 'order'),
        ({'$P3B': 8}, None),
    ],
    ids=str,
)
def test_keywords_that_cannot_be_trusted(tmp_path, extra, words):
    p = fcs(tmp_path / 'odd.fcs', values(), extra=extra)
    if words is None:
        assert len(read_fcs(p)) == 50
    else:
        refuses(p, words)


@pytest.mark.parametrize('drop', ['$PAR', '$DATATYPE'])
def test_keywords_that_are_missing(tmp_path, drop):
    refuses(fcs(tmp_path / 'odd.fcs', values(), drop=[drop]), f'lack.*{drop[1:]}')


def test_what_may_be_missing(tmp_path):
    e = read_fcs(
        fcs(
            tmp_path / 'a.fcs',
            values(),
            drop=['$TOT', '$MODE', '$BYTEORD', '$NEXTDATA', '$P1E', '$P1N'],
            order='1,2,3,4',
            version='FCS2.0',
            place='header',
        )
    )
    assert e.shape == (50, 3) and list(e) == ['P1', 'C1', 'C2']


@pytest.mark.parametrize(
    'places',
    [
        '99999999' * 6,
        '      -1' * 6,
        '       0' * 6,
        '     256       2    4096    4395       0       0',
        'abcdefgh' * 6,
        '     256     700  999999 9999999       0       0',
    ],
)
def test_offsets_outside_the_file(tmp_path, places):
    p = fcs(tmp_path / 'odd.fcs', values(), place='header')
    p.write_bytes(p.read_bytes()[:10] + places.encode() + p.read_bytes()[58:])
    refuses(p, 'torn|cannot be read|lies about')


@pytest.mark.parametrize('n', [0, 1, 10, 57, 58, 200, 300, 1000, 4095, 4096, 4395])
def test_torn_anywhere(tmp_path, n):
    p = fcs(tmp_path / 'torn.fcs', values())
    b = p.read_bytes()
    assert len(b) == 4396
    p.write_bytes(b[:n])
    refuses(p, 'torn|no FCS file|lack|cannot be read')


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5))
def test_whatever_is_changed_it_is_read_or_refused_in_a_sentence(tmp_path, changes):
    p = tmp_path / 'fuzz.fcs'
    if not p.exists():
        fcs(tmp_path / 'good.fcs', values(), extra={'$P1E': '4,1', '$SPILLOVER': '2,C0,C1,1,.1,.2,1'})
    b = bytearray((tmp_path / 'good.fcs').read_bytes()) if (tmp_path / 'good.fcs').exists() else None
    for at, new in changes:
        b[at : at + len(new)] = new
    p.write_bytes(b)
    try:
        e = read_fcs(p)
    except ValueError as err:
        assert 'fuzz.fcs' in str(err)
    else:
        assert len(e) and np.isfinite(e.to_numpy()).all()


def test_several_data_sets(tmp_path):
    one, two = values(seed=1), values(30, seed=2)
    p = fcs(tmp_path / 'set.fcs', one, extra={'$NEXTDATA': 4396})
    p.write_bytes(p.read_bytes() + fcs(tmp_path / 'b.fcs', two, extra={'$SMNO': 'second'}).read_bytes())
    refuses(p, 'holds 2 data sets .0: 50 events, 1: 30 events of second')
    assert [len(read_fcs(p, dataset=k)) for k in (0, 1)] == [50, 30] and read_fcs(p, dataset=1).C0.tolist() == two[
        'C0'
    ].tolist()
    for k in (2, -1, True, 'x'):
        refuses(p, 'no data set', dataset=k)


@pytest.mark.parametrize('step', ['4', '1', '99999999', '-1', 'x', '4395'])
def test_a_next_data_set_that_is_not_there(tmp_path, step):
    assert len(read_fcs(fcs(tmp_path / 'a.fcs', values(), extra={'$NEXTDATA': step}))) == 50


def test_data_sets_that_lead_in_a_circle(tmp_path):
    p = fcs(tmp_path / 'a.fcs', values(), extra={'$NEXTDATA': 4396})
    p.write_bytes(p.read_bytes() + fcs(tmp_path / 'b.fcs', values(), extra={'$NEXTDATA': 0}).read_bytes())
    b = p.read_bytes()
    p.write_bytes(b[:4396] + b[4396:].replace(b'$NEXTDATA/0/', b'$NEXTDATA/1/'))
    assert len(read_fcs(p, dataset=1)) == 50


def test_what_is_no_file(tmp_path):
    with pytest.raises(ValueError, match='is a folder'):
        read_fcs(tmp_path)
    with pytest.raises(FileNotFoundError, match='There is no file gone.fcs'):
        read_fcs(tmp_path / 'gone.fcs')
    (tmp_path / 'page.fcs').write_text('<!DOCTYPE html><html>quota</html>' * 10)
    refuses(tmp_path / 'page.fcs', "begins with '<!DOCTYP'")


def test_infinite_numbers_are_refused(tmp_path):
    refuses(fcs(tmp_path / 'a.fcs', dict(A=[1.0, np.nan, np.inf]), 'F'), '2 of its numbers')


# spill matrices in files

names = {'FSC-A': [1, 2], 'FITC-A': [3, 4], 'PE-A': [5, 6], 'Time': [0, 1]}


@pytest.mark.parametrize(
    'extra',
    [
        {'$SPILLOVER': '2,FITC-A,PE-A,1,0.1,0.02,1'},
        {'SPILL': '2,FITC-A,PE-A,1.0,.1,2e-2,1'},
        {'$SPILL': '2, FITC-A, PE-A, 1, 0.1, 0.02, 1'},
        {'spillover': '2,2,3,1,0.1,0.02,1'},
        {'$COMP': '2,1,0.1,0.02,1'},
        {'$COMP': '2,FITC-A,PE-A,1,0.1,0.02,1'},
        {'$DFC1TO2': '10', '$DFC2TO1': '2.0'},
    ],
    ids=str,
)
def test_where_a_spill_matrix_stands(tmp_path, extra):
    e = read_fcs(fcs(tmp_path / 'a.fcs', names, extra=extra))
    s = pd.DataFrame(e.attrs['spillover'])
    assert s.loc['FITC-A', 'PE-A'] == 0.1 and s.loc['PE-A', 'FITC-A'] == 0.02
    assert np.allclose(compensate(e)[['FITC-A', 'PE-A']].to_numpy() @ s.to_numpy(), e[['FITC-A', 'PE-A']])


@pytest.mark.parametrize(
    'text',
    [
        '2,FITC-A,PE-A,1,0,0,1',
        '6,FITC-A,PE-A',
        '2,FITC-A,PE-A,1,x,0,1',
        '2,FITC-A,PE-A,1,0.1,0.02',
        '',
        '999999999,1',
        '2,FITC-A,FITC-A,1,.1,.1,1',
        '2,APC-A,PE-A,1,.1,.1,1',
        '2,FITC-A,PE-A,1,nan,.1,1',
        '-3,1',
    ],
)
def test_a_matrix_that_says_nothing(tmp_path, text):
    e = read_fcs(fcs(tmp_path / 'a.fcs', names, extra={'$SPILLOVER': text} if text else {}))
    assert e.attrs['spillover'] is None
    with pytest.raises(ValueError, match='a.fcs .* brings no spill matrix'):
        compensate(e)


# channels

makers = [
    (
        'BD',
        [
            'FSC-A',
            'FSC-H',
            'SSC-A',
            'FITC-A',
            'FITC-H',
            'PE-A',
            'PE-Texas Red-A',
            'PerCP-Cy5-5-A',
            'PE-Cy7-A',
            'APC-A',
            'Time',
        ],
        {},
        dict(
            FITC='FITC-A',
            PE='PE-A',
            PerCP='PerCP-Cy5-5-A',
            APC='APC-A',
            **{'PE-Texas-Red': 'PE-Texas Red-A', 'pe-cy7': 'PE-Cy7-A', 'PerCP-Cy5.5': 'PerCP-Cy5-5-A'},
        ),
    ),
    (
        'Accuri',
        ['FSC-A', 'SSC-A', 'FL1-A', 'FL2-A', 'FL3-A', 'FL1-H', 'FL2-H', 'FL3-H', 'Width', 'Time'],
        {'FL1-A': 'Annexin V-FITC', 'FL3-A': '7-AAD'},
        dict(annexin='FL1-A', FITC='FL1-A', FL1='FL1-A', **{'7-AAD': 'FL3-A', '7AAD': 'FL3-A', 'FL2-H': 'FL2-H'}),
    ),
    (
        'Calibur',
        ['FSC-H', 'SSC-H', 'FL1-H', 'FL2-H', 'FL3-H', 'FL2-A', 'Time'],
        {'FL1-H': 'FITC AnnexinV', 'FL3-H': '7AAD'},
        dict(Annexin='FL1-H', FL2='FL2-A', FL3='FL3-H', **{'7-AAD': 'FL3-H'}),
    ),
    (
        'Beckman',
        ['FS INT LIN', 'SS INT LIN', 'FL1 INT LOG', 'FL4 INT LOG'],
        {'FL1 INT LOG': 'ANXV FITC', 'FL4 INT LOG': 'PI'},
        dict(FL1='FL1 INT LOG', FITC='FL1 INT LOG', PI='FL4 INT LOG'),
    ),
    (
        'dyes',
        ['FSC-A', 'SSC-A', 'Annexin V-FITC-A', '7-AAD-A', 'Pacific Blue-A'],
        {},
        dict(annexin='Annexin V-FITC-A', FITC='Annexin V-FITC-A', **{'7-AAD': '7-AAD-A', '7aad': '7-AAD-A'}),
    ),
]


@pytest.mark.parametrize('maker, channels, markers, asked', makers, ids=[o[0] for o in makers])
def test_channels_of_several_makers(maker, channels, markers, asked):
    df = pd.DataFrame(columns=channels)
    df.attrs['channels'] = [dict(name=c, marker=markers.get(c, '')) for c in channels]
    assert {k: find_channel(df, k) for k in asked} == asked


def test_what_may_be_two_channels_is_asked_back():
    df = pd.DataFrame(columns=['CD3 FITC', 'CD4 FITC', 'PE-A'])
    with pytest.raises(ValueError, match=r"'FITC' may be any of \['CD3 FITC', 'CD4 FITC'\]"):
        find_channel(df, 'FITC')
    for odd in ('', 'é', '^', 'A', '('):
        with pytest.raises(ValueError, match='The channels are'):
            find_channel(df, odd)


# scales and compensation


def test_the_tables_of_both_scales():
    x = np.array([-10, -5, -1, 0, 0.3, 1, 3, 10, 100, 1000])
    want = [0.067574, 0.147986, 0.228752, 0.25, 0.256384, 0.271248, 0.312897, 0.432426, 0.739548, 1]
    assert np.abs(scale(x, t=1000, w=1, m=4, a=0) - want).max() < 1e-6
    assert (
        np.abs(scale(np.array([-10, 0, 10, 1000]), 'asinh', t=1000, m=4, a=1) - [-0.200009, 0.2, 0.600009, 1]).max()
        < 1e-6
    )


@quick
@given(
    st.sampled_from(['logicle', 'asinh']),
    st.floats(100, 1e6),
    st.floats(0.1, 2),
    st.floats(4, 6),
    st.integers(0, 10**6),
)
def test_scales_go_both_ways(method, t, w, m, seed):
    x = np.sort(np.random.default_rng(seed).uniform(-0.01 * t, t, 200))
    y = scale(x, method, t, w, m)
    assert (
        np.allclose(scale(y, method, t, w, m, inverse=True), x, rtol=1e-8, atol=1e-8 * t)
        and (np.diff(y) >= 0).all()
        and abs(scale(np.array([t]), method, t, w, m)[0] - 1) < 1e-9
    )


def test_scales_keep_tables_and_refuse_nonsense():
    df = pd.DataFrame(dict(a=[1.0, 2], b=[3.0, 4]), index=[5, 6])
    assert scale(df, 'asinh').index.tolist() == [5, 6] and scale(df.a).name == 'a'
    for kw in (dict(method='log'), dict(t=0), dict(m=-1), dict(w=9), dict(t=np.nan), dict(a=-9), dict(w=-1)):
        with pytest.raises(ValueError):
            scale(df, **kw)
    with pytest.raises(ValueError, match='1 numbers are not finite'):
        scale(np.array([1, np.nan]))


@quick
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_compensation_turns_mixing_around(k, seed):
    rng = np.random.default_rng(seed)
    s = pd.DataFrame(
        np.eye(k) + rng.uniform(0, 0.3 / k, (k, k)) * (1 - np.eye(k)),
        [f'D{i}-A' for i in range(k)],
        [f'D{i}-A' for i in range(k)],
    )
    x = pd.DataFrame(rng.uniform(-1, 10, (200, k)), columns=s.columns).assign(Time=1.0)
    mixed = x.assign(**(x[s.columns] @ s))
    back = compensate(mixed, s)
    assert (back - x).abs().to_numpy().max() < 1e-12 and back.Time.eq(1).all()


def test_matrices_that_cannot_be():
    x = pd.DataFrame({'FITC-A': [1.0, 2], 'PE-A': [3.0, 4]})
    c = list(x)
    for s, words in (
        (pd.DataFrame(np.ones((2, 2)), c, c), 'cannot be turned around'),
        (pd.DataFrame(np.eye(2), c, c[::-1]), 'same channels in the same order'),
        (pd.DataFrame(np.eye(2), ['APC', 'PE-A'], ['APC', 'PE-A']), "'APC' is no channel"),
        (pd.DataFrame([[1, np.nan], [0, 1]], c, c), 'number is missing'),
        (pd.DataFrame(np.ones((2, 1)), c, c[:1]), 'rows'),
    ):
        with pytest.raises(ValueError, match=words):
            compensate(x, s)
    with pytest.raises(ValueError, match='compensated already'):
        compensate(compensate(x, pd.DataFrame(np.eye(2), c, c)))


@pytest.mark.parametrize('seed', range(6))
def test_spill_within_five_thousandths(seed):
    rng = np.random.default_rng(900 + seed)
    planted = SPILL.copy()
    planted.iloc[0, 1], planted.iloc[1, 0] = rng.uniform(0, 0.35, 2)
    sim = simulate_tubes(seed=700 + seed, replicates=1, spill=planted)
    got = spillover(sim.events['N1_unstained'], {d: sim.events[f'N1_single_{d}'] for d in DYES})
    assert (got - planted).abs().to_numpy().max() < 0.005


def test_single_stains_of_beads_and_of_few_cells():
    dark = simulate_tube(seed=[5, 0], stained=())[0]
    beads = [simulate_tube(seed=[5, i], stained=(d,), killed=1.0)[0] for i, d in enumerate(DYES, 1)]
    assert (spillover(dark, dict(zip(DYES, beads))) - SPILL).abs().to_numpy().max() < 0.005
    few = {d: simulate_tube(seed=[6, i], stained=(d,), killed=0.03)[0] for i, d in enumerate(DYES)}
    assert (spillover(dark, few) - SPILL).abs().to_numpy().max() < 0.005
    with pytest.raises(ValueError, match='Single stains of 1 dyes'):
        spillover(dark, {'annexin': few['annexin']})
    with pytest.raises(ValueError, match='same channel'):
        spillover(dark, {'annexin': few['annexin'], 'FITC': few['annexin']})
    with pytest.raises(ValueError, match='too few for a background'):
        spillover(dark[:20], few)
    with pytest.raises(ValueError, match='top of the range'):
        spillover(
            dark, {d: e.assign(**{DYES[d]: np.where(e[DYES[d]] > 2000, 2500.0, e[DYES[d]])}) for d, e in few.items()}
        )


# gates


@quick
@given(st.floats(1e-3, 1e4), st.floats(0.02, 0.9), st.integers(0, 1000))
def test_a_valley_does_not_depend_on_units(unit, share, seed):
    rng = np.random.default_rng(seed)
    x = np.where(rng.uniform(size=4000) < share, np.exp(rng.normal(9, 0.5, 4000)), rng.normal(100, 60, 4000))
    a, b = find_valley(x), find_valley(unit * x)
    assert (
        250 < a.at < 3500
        and abs(b.at / unit - a.at) < 1e-6 * a.at
        and abs(above_peak(unit * x) / unit - above_peak(x)) < 1e-6 * above_peak(x)
    )


@quick
@given(st.sampled_from(['normal', 'lognormal', 'gamma', 'counts']), st.integers(0, 1000))
def test_one_cloud_has_no_valley(kind, seed):
    rng = np.random.default_rng(seed)
    x = dict(
        normal=rng.normal(0, 1, 5000),
        lognormal=np.exp(rng.normal(0, 0.7, 5000)),
        gamma=rng.gamma(2, 1, 5000),
        counts=rng.poisson(6, 5000).astype(float),
    )[kind]
    assert find_valley(x).at is None


@pytest.mark.parametrize(
    'x', [np.zeros(100), np.full(50, 7.0), np.array([1.0, 2.0]), np.arange(600.0) % 2, np.r_[np.zeros(599), 1e9]]
)
def test_odd_channels_do_not_break(x):
    assert (
        np.isfinite(above_peak(x))
        and abs(find_valley(x).dim - np.median(x)) <= 0.02 * x.max() + 0.1 * np.ptp(x[:2]) + 1e-6
    )


def test_cells_are_found_among_much_debris():
    e, t = simulate_tube(n=6000, seed=4)
    bits = e[(t.population == 'debris').to_numpy()]
    rng = np.random.default_rng(0)
    more = pd.concat(
        [e] + [bits * rng.uniform(0.7, 1.3, bits.shape).astype(np.float32) for _ in range(25)], ignore_index=True
    )
    g = gate_cells(more)
    assert (
        len(more) > 2.4 * len(e)
        and g.cell[len(e) :].mean() < 0.01
        and g.cell[: len(e)][t.population.isin(POPULATIONS).to_numpy()].mean() > 0.999
    )


def test_gates_by_height_alone_and_by_what_another_maker_calls_it():
    e, t = simulate_tube(n=4000, seed=4)
    cell = t.population.isin(POPULATIONS).to_numpy()
    for names in (
        {'FSC-A': 'FSC-H2', 'FSC-H': 'FSC-H', 'SSC-A': 'SSC-H'},
        {'FSC-A': 'FS INT LIN', 'FSC-H': 'x', 'SSC-A': 'SS INT LIN'},
        {'FSC-A': 'FSC', 'FSC-H': 'y', 'SSC-A': 'SSC'},
        {'FSC-A': 'FSC-HLin', 'FSC-H': 'z', 'SSC-A': 'none'},
    ):
        g = gate_cells(e.rename(columns=names))
        assert g.cell[cell].mean() > 0.99 and g.cell[(t.population == 'debris').to_numpy()].mean() < 0.01
    with pytest.raises(ValueError, match='scatter'):
        gate_cells(e[['FITC-A']])
    with pytest.raises(ValueError, match='50 events'):
        gate_cells(e[:20])
    with pytest.raises(ValueError, match='radius'):
        gate_cells(e, radius=0)


def test_singlets_of_tubes_with_many_doublets_and_odd_pulses():
    e, t = simulate_tube(n=5000, seed=8)
    pairs = e[(t.population == 'doublet').to_numpy()]
    g = gate_singlets(gate_cells(pd.concat([e] + [pairs] * 8, ignore_index=True)))
    assert (
        g.singlet[len(e) :].mean() < 0.01
        and g.singlet[: len(e)][t.population.isin(POPULATIONS).to_numpy()].mean() > 0.999
    )
    odd = e.copy()
    odd.loc[:9, 'FSC-A'] = -5
    assert not gate_singlets(odd).singlet[:10].any()


# tubes


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_tubes(simulate_tubes('MCF7', n=3000, seed=41), tmp_path_factory.mktemp('flow') / 'tubes')


@pytest.fixture(scope='module')
def tubes(folder):
    return read_tubes(folder)


def rows(**k):
    return pd.DataFrame([dict(file=f, role=r) for f, r in k.items()])


def test_tubes_are_as_the_map_says(tubes, folder):
    assert len(tubes) == 18 and not tubes.attrs['problems'] and (tubes.events == 3000).all() and tubes.hour.eq(6).all()
    assert set(tubes.role) == {'unstained', 'single_annexin', 'single_7-AAD', 'untreated', 'sample'} and list(tubes)[
        :6
    ] == ['tube', 'path', 'role', 'replicate', 'treatment', 'hour']


@pytest.mark.parametrize(
    'table, words',
    [
        (dict(file=['a'], role=['sample']), 'None of the 1 files'),
        (dict(file=['../N1_untreated.fcs'], role=['sample']), 'outside the folder'),
        (dict(file=['/etc/passwd'], role=['sample']), 'outside the folder'),
        (dict(file=['C:\\x.fcs'], role=['sample']), 'outside the folder'),
        (dict(file=['N1_untreated.fcs'] * 2, role=['sample'] * 2), 'twice'),
        (dict(name=['x']), 'needs file and role'),
        (dict(file=[], role=[]), 'needs a row a file'),
        (dict(file=['N1_untreated.fcs'], role=['']), 'has the role'),
        (dict(file=['N1_untreated.fcs'], role=['single']), 'has the role'),
    ],
)
def test_maps_that_do_not_fit(folder, table, words):
    with pytest.raises(ValueError, match=words):
        read_tubes(folder, pd.DataFrame(table))


def test_maps_as_people_write_them(folder, tmp_path):
    (tmp_path / 'm.csv').write_text(
        'File, Role ,Replicate,Treatment,note\nn1_UNTREATED,Untreated,N1,,mine\nN1_MCF7_CPT_6H.FCS,SAMPLE,N1, CPT ,\nN1_single_annexin.fcs,single annexin,N1,,\nN1_unstained.fcs,Unstained control,N1,,\n'
    )
    t = read_tubes(folder, tmp_path / 'm.csv')
    assert (
        t.role.tolist() == ['untreated', 'sample', 'single_annexin', 'unstained']
        and t.treatment.tolist() == ['', 'CPT', '', '']
        and t.map_note[0] == 'mine'
        and t.hour.isna().all()
    )
    assert len(t.attrs['problems']) == 14 and all('not in the map' in o['problem'] for o in t.attrs['problems'])


def test_no_map_and_no_folder(folder, tmp_path):
    for f in folder.glob('*.fcs'):
        shutil.copy(f, tmp_path)
    with pytest.raises(FileNotFoundError, match='no tube map tubes.csv.*file,role,replicate'):
        read_tubes(tmp_path)
    with pytest.raises(FileNotFoundError, match='no folder'):
        read_tubes(tmp_path / 'gone')
    draft = guess_tubes(tmp_path)
    assert (
        len(draft) == 18 and draft.role.tolist() == pd.read_csv(folder / 'tubes.csv').sort_values('file').role.tolist()
    )


def test_a_map_keeps_formulas_as_text(folder, tmp_path):
    write_csv(rows(**{'N1_untreated.fcs': 'untreated'}).assign(comment='=cmd()'), tmp_path / 'm.csv')
    assert read_tubes(folder, tmp_path / 'm.csv').comment[0] == '=cmd()'


def test_data_sets_of_a_map(tmp_path):
    e = [simulate_tube(n=600, seed=k)[0] for k in (1, 2)]
    a, b = (write_fcs(o, tmp_path / f'{k}.fcs').read_bytes() for k, o in enumerate(e))
    n = len(a)
    first = a.replace(b'$NEXTDATA/0/', b'$NEXTDATA/%d/' % n)
    pad = len(first) - n  # the keywords grew, so offsets move
    shift = lambda m: b'%8d' % (int(m) + pad)
    first = first[:18] + shift(first[18:26]) + shift(first[26:34]) + shift(first[34:42]) + first[42:]
    first = first.replace(b'$NEXTDATA/%d/' % n, b'$NEXTDATA/%d/' % len(first))
    (tmp_path / 'plate.fcs').write_bytes(first + b)
    t = read_tubes(tmp_path, pd.DataFrame(dict(file=['plate.fcs'] * 2, role=['sample'] * 2, dataset=[0, 1])))
    assert t.tube.tolist() == ['plate #0', 'plate #1'] and t.events.tolist() == [600, 600]
    got = quadrants(t, {'FITC-A': 2000, 'PerCP': 2000})
    assert got.n.tolist() == [600, 600] and got.early[0] != got.early[1]
    t = read_tubes(tmp_path, pd.DataFrame(dict(file=['plate.fcs', '0.fcs'], role=['sample'] * 2)))
    assert (
        len(t) == 1
        and 'holds 2 data sets' in next(o for o in t.attrs['problems'] if o['file'] == 'plate.fcs')['problem']
    )


# quadrants


def test_within_a_tenth_of_a_point_over_twenty_fresh_tubes():
    worst = []
    for k, (line, hour) in enumerate([('iPS1', 1), ('MCF7', 3), ('PC3', 6), ('H9', 2)] * 5):
        sim = simulate_tubes(line, 'CPT', hour, seed=8000 + k, replicates=1, n=9000)
        sample = {t: e for t, e in sim.events.items() if line in t}
        got = quadrants(sample, quadrant_gates({t[3:]: e for t, e in sim.events.items() if line not in t}))
        worst.append(
            np.abs(
                got[list(POPULATIONS)].to_numpy()
                - sim.shares.set_index('tube').loc[got.tube, list(POPULATIONS)].to_numpy()
            ).max()
        )
    assert len(worst) == 20 and max(worst) < 0.1


def test_files_give_what_tables_give(tubes, folder):
    sim = simulate_tubes('MCF7', n=3000, seed=41)
    a = quadrants(tubes, quadrant_gates(tubes)).set_index('tube')
    own = {t: e for t, e in sim.events.items() if t.startswith('N2') and 'MCF7' in t}
    b = quadrants(
        own, quadrant_gates({t[3:]: e for t, e in sim.events.items() if t.startswith('N2') and 'MCF7' not in t})
    ).set_index('tube')
    assert np.allclose(a.loc[b.index, ['n', 'Q1', 'Q2', 'Q3', 'Q4']], b[['n', 'Q1', 'Q2', 'Q3', 'Q4']])


def test_nothing_is_written_into_the_folder(tubes, folder):
    before = {f: f.stat().st_mtime_ns for f in folder.rglob('*')}
    compare_quadrants(quadrants(tubes, quadrant_gates(tubes)))
    assert before == {f: f.stat().st_mtime_ns for f in folder.rglob('*')}


def test_controls_that_are_shared_or_lacking(tubes):
    shared = tubes[(tubes.role == 'sample') | (tubes.replicate == 'N1')].copy()
    shared.loc[shared.role != 'sample', 'replicate'] = ''
    g = quadrant_gates(shared)
    assert g.replicate.tolist() == [''] and len(quadrants(shared, g)) == 7
    partly = tubes[~((tubes.replicate == 'N3') & tubes.role.str.startswith('single'))]
    assert quadrant_gates(partly).replicate.tolist() == ['N1', 'N2', 'N3']
    vehicle = quadrant_gates(tubes[tubes.role != 'untreated'])
    assert len(vehicle) == 3 and vehicle.x_gate.min() > 300
    with pytest.raises(ValueError, match='No tube has the role untreated'):
        quadrant_gates(tubes[tubes.role.str.startswith('single') | (tubes.role == 'unstained')])


def test_without_single_stains(tubes, folder, tmp_path):
    bare = tubes[~tubes.role.str.startswith('single')]
    with pytest.raises(ValueError, match='single stains of 0 dyes, and N1_untreated.fcs brings no spill matrix'):
        quadrant_gates(bare)
    raw = quadrants(bare, quadrant_gates(bare, spill=False))
    right = quadrants(bare, quadrant_gates(bare, spill=SPILL))
    assert (
        raw.late[raw.treatment == 'CPT'].min() > right.late[right.treatment == 'CPT'].max()
    )  # spilled light makes late cells of early ones
    for o in bare.itertuples():
        write_fcs(read_fcs(o.path), tmp_path / f'{o.tube}.fcs', MARKERS, SPILL)
    own = read_tubes(tmp_path, bare[['tube', 'role', 'replicate', 'treatment']].rename(columns=dict(tube='file')))
    assert np.allclose(quadrants(own, quadrant_gates(own)).early, right.early, atol=1e-6)


def test_few_bright_cells_and_none(tmp_path):
    parts = {
        k: simulate_tube('T47D', 'DMSO', 6, n=1500, seed=[3, i], stained=s, killed=q)[0]
        for i, (k, s, q) in enumerate(
            (
                ('unstained', (), 0),
                ('single_annexin', ('annexin',), 0.3),
                ('single_7-AAD', ('7-AAD',), 0.3),
                ('untreated', tuple(DYES), 0),
            )
        )
    }
    g = quadrant_gates(parts)
    assert 'its single stain was added' in g.note[0] and 500 < g.x_gate[0] < 4000
    assert 'not compensated' in quadrant_gates(parts['untreated']).note[0]
    alone = quadrant_gates(compensate(parts['untreated'], SPILL))
    assert 'no valley' in alone.note[0] and 'not compensated' not in alone.note[0] and 200 < alone.x_gate[0] < 4000
    with pytest.raises(ValueError, match='fewer than 500'):
        quadrant_gates(compensate(parts['untreated'][:450], SPILL))


def test_a_tube_that_lacks_a_channel_or_is_gone_does_not_stop_the_others(tubes, tmp_path):
    odd = tubes.copy()
    odd['path'] = odd.path.astype(object)
    e = read_fcs(odd.path[4])
    odd.at[4, 'path'] = write_fcs(e.drop(columns='FITC-A'), tmp_path / 'other.fcs')
    with pytest.warns(UserWarning, match='1 of 9 tubes were not counted'):
        t = quadrants(odd, quadrant_gates(tubes))
    assert t.n.eq(0).sum() == 1 and 'other.fcs' in t.note[t.n == 0].iloc[0] and t.early.notna().sum() == 8
    odd['path'] = tmp_path / 'gone.fcs'
    with pytest.raises(ValueError, match='None of the 9 tubes could be counted'):
        quadrants(odd, quadrant_gates(tubes))


def test_gates_of_others():
    e = compensate(simulate_tube(n=3000, seed=2)[0], SPILL)
    t = quadrants(e, {'FITC-A': 2000, 'PerCP-Cy5-5-A': 2000})
    assert abs(t[['Q1', 'Q2', 'Q3', 'Q4']].sum(axis=1)[0] - 100) < 1e-9 and t.n[0] == 3000 and t.Q3[0] == t.early[0]
    x, y = e['FITC-A'] > 2000, e['PerCP-Cy5-5-A'] > 2000
    assert np.allclose(
        t[['Q1', 'Q2', 'Q3', 'Q4']].iloc[0],
        [100 * (~x & y).mean(), 100 * (x & y).mean(), 100 * (x & ~y).mean(), 100 * (~x & ~y).mean()],
    )
    with pytest.raises(ValueError, match='two channels with their lines'):
        quadrants(e, {'FITC-A': 1})
    with pytest.raises(ValueError, match="'APC' is no channel"):
        quadrants(e, {'FITC-A': 1, 'APC': 2})
    with pytest.raises(ValueError, match='Both axes'):
        quadrant_gates(e, x='FITC-A', y='FITC-A')
    with pytest.raises(ValueError, match="Choose 'valley' or 'peak'"):
        quadrant_gates(e, method='percentile')
    with pytest.raises(ValueError, match='Say which one with x='):
        quadrant_gates(e[['FSC-A', 'SSC-A', 'Time']])
    with pytest.raises(ValueError, match="'untreated'"):
        quadrant_gates({'unstained': e})


def test_a_small_tube_and_an_empty_one():
    e = compensate(simulate_tube(n=3000, seed=2)[0], SPILL)
    t = quadrants(dict(small=e[:100], big=e), {'FITC-A': 2000, 'PerCP': 2000})
    assert 'only 100 cells: a share of 10 % is known to 6 points' in t.note[0] and not t.note[1]
    with pytest.warns(UserWarning, match='1 of 2 tubes were not counted'):
        t = quadrants({'none': e[:0], 'big': e}, {'FITC-A': 2000, 'PerCP': 2000})
    assert t.n.tolist() == [0, 3000] and np.isnan(t.early[0])


# arms and figures


@pytest.fixture(scope='module')
def counted(tubes):
    return quadrants(tubes, quadrant_gates(tubes))


def test_arms_are_compared_by_replicates(counted):
    c = compare_quadrants(counted, 'early').set_index('test')
    s = counted[counted.role == 'sample'].pivot(index='replicate', columns='treatment', values='early')
    from scipy import stats

    assert abs(c.p['Welch, replicate means'] - stats.ttest_ind(s.CPT, s.DMSO, equal_var=False).pvalue) < 1e-9
    assert abs(c.p['paired t, replicate means'] - stats.ttest_rel(s.CPT, s.DMSO).pvalue) < 1e-9
    assert (
        abs(c['mean'].iloc[0] - s.CPT.mean()) < 1e-9
        and abs(c['reference_sem'].iloc[0] - s.DMSO.sem()) < 1e-9
        and c.replicates.eq(3).all()
    )


def test_without_a_drug_a_difference_is_rare():
    hits = []
    for k in range(8):
        sim = simulate_tubes(n=800, seed=9000 + k, effect=0)
        t = sim.tubes.merge(sim.shares).assign(Q1=0)
        hits.append(
            compare_quadrants(t[t.role == 'sample'], 'early').set_index('test').p['paired t, replicate means'] < 0.05
        )
    assert sum(hits) <= 3


def test_comparisons_that_cannot_be(counted):
    one = compare_quadrants(counted[counted.replicate == 'N1'])
    assert (
        one.p[1:].isna().all()
        and 'one replicate' in one.note[1]
        and one.replicates.eq(1).all()
        and one['sem'].isna().all()
    )
    with pytest.raises(ValueError, match='only one arm'):
        compare_quadrants(counted[counted.treatment == 'CPT'])
    with pytest.raises(ValueError, match='it needs'):
        compare_quadrants(counted.drop(columns='replicate'))
    with pytest.raises(ValueError, match='Choose from'):
        compare_quadrants(counted, 'Q5')


def test_figures_take_and_return_axes(tubes, counted):
    import matplotlib

    matplotlib.use('agg')
    import matplotlib.pyplot as plt

    gates = quadrant_gates(tubes)
    fig, ax = plt.subplots()
    assert plot_quadrants(tubes, gates, counted, ax=ax) is ax and len(ax.collections[0].get_offsets()) == 6000
    words = ' '.join(t.get_text() for t in ax.texts)
    for arm in ('CPT', 'DMSO'):
        assert f'{arm} {counted[counted.treatment == arm].early.mean():.1f} ± ' in words
    axes = plot_controls(tubes, gates, 'N2')
    assert len(axes) == 4 and 'Annexin V' in axes[0].get_xlabel()
    e = compensate(simulate_tube(n=1000)[0], SPILL)
    assert (
        plot_quadrants(dict(a=e, b=e), {'FITC-A': 2000, 'PerCP': 2000}).get_title().startswith('a and b, 1 replicate')
    )
    plt.close('all')


# the simulator


def test_shares_follow_the_drug():
    for line in ('iPS1', 'MCF7', 'U2OS'):
        dead = [1 - death_shares(line, 'CPT', h, d)['alive'] for h in (0, 1, 3, 6) for d in (0.1, 1, 10)]
        grid = np.array(dead).reshape(4, 3)
        assert (np.diff(grid, axis=0) >= 0).all() and (np.diff(grid, axis=1) >= 0).all()
        assert (
            death_shares(line, 'CPT', 6, 0) == death_shares(line, 'DMSO', 6) == death_shares(line, 'CPT', 6, effect=0)
        )


def test_the_same_seed_gives_the_same_tubes(tmp_path):
    a, b = (write_tubes(simulate_tubes(n=300, seed=6, replicates=1), tmp_path / k) for k in 'ab')
    assert [f.name for f in sorted(a.rglob('*'))] == [f.name for f in sorted(b.rglob('*'))]
    assert all((b / f.relative_to(a)).read_bytes() == f.read_bytes() for f in a.rglob('*') if f.is_file())
    with pytest.raises(FileExistsError):
        write_tubes(simulate_tubes(n=300, replicates=1), a)


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(line='HeLa'), 'Choose from'),
        (dict(treatment='DSMO'), "Did you mean 'DMSO'"),
        (dict(n=0), 'n=0'),
        (dict(n=2.5), 'n=2.5'),
        (dict(hour=-1), 'hour'),
        (dict(dose_um=-1), 'dose_um'),
        (dict(replicates=0), 'replicates'),
        (dict(effect=np.nan), 'effect'),
        (dict(seed=-1), 'seed'),
        (dict(spread=-1), 'spread'),
    ],
)
def test_simulations_that_cannot_be_meant(kwargs, words):
    with pytest.raises(ValueError, match=words):
        simulate_tubes(**{**dict(n=100, replicates=1), **kwargs})


# the extra


def test_nothing_heavy_at_import():
    code = 'import sys, celldeath_nb.assays.flow, celldeath_nb.simulate.tubes; sys.exit(" ".join(m for m in ("flowio", "flowutils", "torch", "skimage", "sklearn") if m in sys.modules))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stderr.strip() == ''


def test_how_to_get_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'flowio', None)
    with pytest.raises(ImportError, match=r'pip install "celldeath_nb\[flow\]"'):
        write_fcs(pd.DataFrame(dict(a=[1.0])), tmp_path / 'x.fcs')
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, 'flowutils', None)
    with pytest.raises(ImportError, match='flowutils'):
        scale(np.array([1.0]))
    assert scale(np.array([0.0]), 'asinh')[0] == 0
