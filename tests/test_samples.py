"The download of the real photographs: whole and verified, or nothing. Served by this computer to itself."
import functools, http.server, shutil, socket, threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from celldeath_nb.simulate.samples import download, sample_data, u2os_registry, whats_wrong

real = Path(__file__).resolve().parents[2]/'shared'/'data'/'u2os'
needs_real = pytest.mark.skipif(not real.is_dir(), reason=f'the real photographs are not at {real}')


@contextmanager
def serving(folder, handler=None):
    class Quiet(handler or http.server.SimpleHTTPRequestHandler):
        asked = []
        def log_message(self, *args): pass
        def do_GET(self): Quiet.asked.append(self.path); super().do_GET()
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}', Quiet.asked
    finally: server.shutdown(); server.server_close()


@pytest.fixture
def few():
    "The first three rows of the registry, whose photographs are downloaded in a moment."
    return u2os_registry().iloc[:3].reset_index(drop=True)


def left(folder): return sorted(o.name for o in folder.iterdir())


@needs_real
def test_the_packaged_registry_is_the_published_one():
    assert (real/'registry.csv').read_text() == (Path(__file__).parents[1]/'celldeath_nb'/'u2os_registry.csv').read_text()


@needs_real
def test_all_45_arrive_verified_and_are_used_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving(real) as (url, asked):
        monkeypatch.setenv('CELLDEATH_BASE_URL', url)
        out = sample_data('u2os')
        assert out == Path('data/u2os') and len(left(out)) == 45 and whats_wrong(out) == {}
        assert len(asked) == 45
        assert sample_data('u2os') == out and len(asked) == 45
    assert left(tmp_path/'data') == ['u2os']


@needs_real
def test_layout_of_the_repository(tmp_path, few):
    for src in few.path_in_repository:
        (tmp_path/'site'/src).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real/Path(src).name, tmp_path/'site'/src)
    with serving(tmp_path/'site') as (url, _): assert whats_wrong(download(tmp_path/'out', few, url+'/'), few) == {}


@needs_real
@pytest.mark.parametrize('harm', ['cut', 'flipped', 'page', 'gone'])
def test_a_broken_photograph_is_named_and_nothing_stays(tmp_path, few, harm):
    site = tmp_path/'site'
    site.mkdir()
    for o in few.file: shutil.copyfile(real/o, site/o)
    last, whole = site/few.file[2], (real/few.file[2]).read_bytes()
    if harm == 'cut': last.write_bytes(whole[:1000])
    if harm == 'flipped': last.write_bytes(whole[:5000]+bytes([whole[5000]^1])+whole[5001:])
    if harm == 'page': last.write_text('<html>quota exceeded</html>')
    if harm == 'gone': last.unlink()
    with serving(site) as (url, _), pytest.raises(OSError, match=few.file[2]): download(tmp_path/'out', few, url)
    assert left(tmp_path) == ['site']


@needs_real
def test_a_connection_that_breaks_off(tmp_path, few):
    class Breaks(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source, outputfile):
            outputfile.write(source.read(5000))
            outputfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
    with serving(real, Breaks) as (url, _), pytest.raises(OSError, match=few.file[0]): download(tmp_path/'out', few, url)
    assert left(tmp_path) == []


@needs_real
def test_a_damaged_folder_is_refused_then_replaced(tmp_path, few):
    with serving(real) as (url, _):
        out = download(tmp_path/'out', few, url)
        (out/few.file[1]).unlink()
        with pytest.raises(FileExistsError, match=f'{few.file[1]}, missing'): download(out, few, url)
        assert whats_wrong(download(out, few, url, overwrite=True), few) == {}
    assert left(tmp_path) == ['out']


def test_offline(tmp_path, few):
    with pytest.raises(OSError, match='cannot be reached.*simulated.*CELLDEATH_BASE_URL'): download(tmp_path/'out', few, 'http://127.0.0.1:9')
    with pytest.raises(OSError, match='cannot be reached'): download(tmp_path/'out', few, 'http://no-such-host.invalid/')
    assert left(tmp_path) == []


def test_overwriting_offline_keeps_what_was_there(tmp_path, few):
    (tmp_path/'out').mkdir()
    (tmp_path/'out'/'mine.txt').write_text('kept')
    with pytest.raises(OSError): download(tmp_path/'out', few, 'http://127.0.0.1:9', overwrite=True)
    assert left(tmp_path/'out') == ['mine.txt']


@pytest.mark.parametrize('url', ['file:///etc', 'ftp://host/x', 'u2os'])
def test_only_web_addresses(tmp_path, few, url):
    with pytest.raises(ValueError, match='https://'): download(tmp_path/'out', few, url)


def test_simulated_set_is_whole_or_absent(tmp_path, monkeypatch):

    def breaks(out, **kw):
        out.mkdir()
        (out/'U2_CPT1_1H_RGB_0001_N1.png').write_bytes(b'x')
        raise KeyboardInterrupt
    monkeypatch.setattr(samples, 'simulate_experiment', breaks)
    with pytest.raises(KeyboardInterrupt): sample_data('simulated', tmp_path/'s')
    assert left(tmp_path) == []
