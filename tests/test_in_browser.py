"""In JupyterLab, by clicking and typing: the blind trial (the page is reloaded in the middle, the kernel restarted, and no answer is lost), the gallery
for studying, and the panels (a threshold, mislabeled tiles, a whole road from a form).

Needs Debian's browser (`apt-get install chromium chromium-driver`), `pip install selenium jupyterlab` and `celldeath_nb`.
Set CELLDEATH_SCREENSHOTS to a folder to keep the screenshots.
"""

import json, os, shutil, signal, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')
if not BROWSER or not DRIVER:
    pytest.skip('no browser: apt-get install chromium chromium-driver', allow_module_level=True)
webdriver = pytest.importorskip('selenium.webdriver', reason='no selenium: pip install selenium')
pytest.importorskip('jupyterlab', reason='no JupyterLab: pip install jupyterlab')
pytest.importorskip('ipykernel', reason='no kernel: pip install ipykernel')

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from celldeath_nb.files import read_csv, read_json
from celldeath_nb.people.judging import read_judgements
from celldeath_nb.simulate.samples import sample_data
from celldeath_nb.tiles.store import open_tiles

CODE = [
    "from celldeath_nb.people import Trial\nfrom celldeath_nb.tiles import open_tiles",
    "tiles = open_tiles('store')\nnetwork = tiles.table.assign(pred=tiles.table.label)\n"
    "trial = Trial(tiles, n=10, classes=('DMSO', 'CPT'), subject='browser', network=network)\ntrial",
]
GALLERY = [
    "from celldeath_nb.people import TrainingGallery\nfrom celldeath_nb.tiles import open_tiles",
    "gallery = TrainingGallery(open_tiles('store'), n=8, classes=('DMSO', 'CPT'), subject='browser')\ngallery",
]
CLICKS = ['CPT', 'DMSO', 'cannot tell', 'CPT', 'CPT', 'DMSO', 'DMSO', 'DMSO', 'cannot tell', 'CPT']
KEYS = {8: '1', 9: '0', 10: Keys.ARROW_RIGHT}


def make_store(folder):
    "Forty photographs of noisy blobs in the names of the paper's lab, cut into single tiles of 480x640."
    from PIL import Image
    from celldeath_nb.photos.fields import read_fields
    from celldeath_nb.tiles.cut import cut_tiles

    rng = np.random.default_rng(0)
    (y, x) = np.mgrid[:480, :640]
    (folder / 'photos').mkdir(parents=True)
    for i in range(40):
        a = rng.normal(120, 8, (480, 640))
        for cy, cx in rng.uniform((0, 0), (480, 640), (12, 2)):
            a += 70 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 300)
        name = f'U2_{("CPT", "DMSO")[i % 2]}{i // 2 % 2 + 1}_1H_RGB_{i:04}_N1.png'
        Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(folder / 'photos' / name)
    cut_tiles(read_fields(folder / 'photos', um_per_px=0.434), folder / 'store', grid=(1, 1))


def make_notebook(path, code):
    cells = [
        dict(cell_type='code', id=f'c{i}', metadata={}, source=s, execution_count=None, outputs=[])
        for i, s in enumerate(code)
    ]
    path.write_text(
        json.dumps(
            dict(
                cells=cells,
                metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')),
                nbformat=4,
                nbformat_minor=5,
            )
        )
    )


def lab_env(home):
    "Settings of its own, no news, no proxy, and this checkout first on the path."
    s = home / 'settings' / '@jupyterlab' / 'apputils-extension'
    s.mkdir(parents=True)
    (s / 'notification.jupyterlab-settings').write_text('{"fetchNews": "false", "checkForUpdates": false}')
    own = {
        k: str(home / k.lower())
        for k in (
            'JUPYTER_CONFIG_DIR',
            'JUPYTER_DATA_DIR',
            'JUPYTER_RUNTIME_DIR',
            'JUPYTERLAB_WORKSPACES_DIR',
            'IPYTHONDIR',
        )
    }
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    return (
        os.environ
        | own
        | dict(
            JUPYTERLAB_SETTINGS_DIR=str(home / 'settings'),
            PYTHONPATH=path,
            HOME=str(home),
            NO_PROXY='127.0.0.1,localhost',
            no_proxy='127.0.0.1,localhost',
        )
    )


@pytest.fixture
def lab(tmp_path):
    "JupyterLab on loopback, in a folder with a store of tiles and the notebook of a trial; its address."
    work = tmp_path / 'work'
    make_store(work)
    make_notebook(work / 'trial.ipynb', CODE)
    make_notebook(work / 'gallery.ipynb', GALLERY)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    cmd = [
        sys.executable,
        '-m',
        'jupyterlab',
        '--no-browser',
        '--allow-root',
        '--ServerApp.ip=127.0.0.1',
        f'--ServerApp.port={port}',
        '--ServerApp.port_retries=0',
        '--IdentityProvider.token=trial',
        f'--ServerApp.root_dir={work}',
        '--LabApp.expose_app_in_browser=True',
        '--LabApp.extension_manager=readonly',
    ]
    log = open(tmp_path / 'lab.log', 'wb')
    server = subprocess.Popen(
        cmd, cwd=work, env=lab_env(tmp_path / 'home'), stdout=log, stderr=log, start_new_session=True
    )
    try:
        wait_for_server(f'http://127.0.0.1:{port}/api?token=trial', server, tmp_path / 'lab.log')
        yield f'http://127.0.0.1:{port}', work
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
        log.close()


def wait_for_server(url, server, log, seconds=40):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(seconds * 5):
        if server.poll() is not None:
            raise RuntimeError('JupyterLab ended:\n' + log.read_text()[-2000:])
        try:
            return opener.open(url, timeout=2).read()
        except OSError:
            time.sleep(0.2)
    raise RuntimeError('JupyterLab does not answer:\n' + log.read_text()[-2000:])


@pytest.fixture
def driver(tmp_path, monkeypatch):
    "A headless browser of 1280x800 with a profile of its own."
    monkeypatch.setenv('NO_PROXY', '127.0.0.1,localhost')
    monkeypatch.setenv('no_proxy', '127.0.0.1,localhost')
    o = webdriver.ChromeOptions()
    o.binary_location = BROWSER
    for a in (
        'headless=new',
        'no-sandbox',
        'disable-gpu',
        'disable-dev-shm-usage',
        'disable-background-networking',
        'disable-component-update',
        'disable-sync',
        'no-first-run',
        'no-proxy-server',
        'window-size=1280,800',
        f'user-data-dir={tmp_path / "profile"}',
    ):
        o.add_argument('--' + a)
    d = webdriver.Chrome(options=o, service=webdriver.ChromeService(DRIVER))
    d.set_script_timeout(20)
    try:
        d.execute_cdp_cmd(
            'Emulation.setDeviceMetricsOverride', dict(width=1280, height=800, deviceScaleFactor=1, mobile=False)
        )
        # a window that nobody looks at has no focus, and JupyterLab then no current notebook
        d.execute_cdp_cmd('Emulation.setFocusEmulationEnabled', dict(enabled=True))
        yield d
    finally:
        d.quit()


class Page:
    "What a person sees and does."

    def __init__(self, driver):
        self.d = driver

    def until(self, f, what, seconds=25):
        try:
            return WebDriverWait(
                self.d, seconds, 0.1, ignored_exceptions=[StaleElementReferenceException, WebDriverException]
            ).until(lambda _: f())
        except Exception:
            shot(self.d, 'failed')
            raise AssertionError(
                f'waited {seconds} s for {what}; the page says: {self.d.find_element(By.TAG_NAME, "body").text[-1500:]}'
            ) from None

    def command(self, name, args=None):
        return self.d.execute_async_script(
            'const done = arguments[arguments.length-1]; window.jupyterapp.commands.execute(arguments[0], arguments[1] || {}).then(() => done(true), e => done(String(e)))',
            name,
            args,
        )

    def open(self, url):
        self.d.get(url)
        self.until(
            lambda: self.d.execute_script(
                'return !!(window.jupyterapp && window.jupyterapp.shell.currentWidget && window.jupyterapp.shell.currentWidget.context && window.jupyterapp.shell.currentWidget.context.isReady)'
            ),
            'the notebook',
        )

    def kernel_idle(self):
        return self.d.execute_script(
            'const s = window.jupyterapp.shell.currentWidget.context.sessionContext; return !!(s && s.session && s.session.kernel && s.session.kernel.status === "idle" && s.session.kernel.connectionStatus === "connected")'
        )

    def run_all(self):
        self.until(self.kernel_idle, 'an idle kernel')
        assert self.command('notebook:run-all-cells') is True

    def button(self, text):
        found = [
            b
            for b in self.d.find_elements(By.CSS_SELECTOR, 'button.jupyter-button')
            if b.text.strip() == text and b.is_displayed()
        ]
        return found[-1] if found else None

    def says(self, text):
        return any(
            text in e.text
            for e in self.d.find_elements(By.CSS_SELECTOR, '.jupyter-widgets.widget-html')
            if e.is_displayed()
        )

    def picture(self):
        "Natural and shown size of the tile in view."
        return self.until(
            lambda: self.d.execute_script(
                'const i = [...document.querySelectorAll("img.widget-image")].filter(e => e.offsetParent && e.naturalWidth).pop(); return i && [i.naturalWidth, i.naturalHeight, i.getBoundingClientRect().width, i.getBoundingClientRect().height]'
            ),
            'the picture',
        )

    def click(self, text):
        b = self.until(lambda: self.button(text), f'the button {text!r}')
        self.d.execute_script('arguments[0].scrollIntoView({block: "nearest"})', b)
        b.click()


def shot(driver, name):
    folder = os.environ.get('CELLDEATH_SCREENSHOTS')
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(Path(folder) / f'{name}.png'))


def answer(page, first, last, secrets):
    "Answer tiles `first` to `last` by clicking, and look for hints on the way."
    for k in range(first, last + 1):
        page.until(lambda: page.says(f'Tile {k} of 10'), f'tile {k}')
        assert page.picture() == [640, 506, 640, 506], 'a tile is not shown at its real size'
        html = page.d.page_source
        assert not [s for s in secrets if s in html], f'the page of tile {k} names a photograph'
        time.sleep(0.35)  # a click within 0.3 s of the picture is taken for a double click
        page.click(CLICKS[k - 1])


def answer_by_keys(page):
    "Answer the last tiles by the keyboard, with a pause between."
    press = lambda key: page.d.switch_to.active_element.send_keys(key)
    for k, key in KEYS.items():
        page.until(lambda: page.says(f'Tile {k} of 10'), f'tile {k}')
        page.picture()
        if k == 9:
            press('p')
            page.until(lambda: page.says('Pause before tile 9'), 'the pause')
            press('p')
            page.until(lambda: page.says('Tile 9 of 10'), 'tile 9 again')
        time.sleep(0.35)
        press(key)


@pytest.mark.long
def test_ten_tiles_survive_a_reload_and_a_restart_and_a_gallery_is_studied(lab, driver):
    url, work = lab
    page = Page(driver)
    secrets = [p.stem for p in (work / 'photos').glob('*.png')]
    page.open(f'{url}/lab/tree/trial.ipynb?token=trial')
    page.run_all()
    page.click('Begin')
    answer(page, 1, 4, secrets)
    page.until(lambda: page.says('Tile 5 of 10'), 'tile 5')
    shot(driver, 'trial_1280x800')

    assert page.command('docmanager:save') is True
    page.open(f'{url}/lab/tree/trial.ipynb?token=trial')
    answer(page, 5, 7, secrets)

    page.until(lambda: page.says('Tile 8 of 10'), 'tile 8')
    driver.execute_script('window.jupyterapp.commands.execute("kernelmenu:restart")')
    page.until(
        lambda: driver.find_elements(By.CSS_SELECTOR, '.jp-Dialog .jp-mod-accept'), 'the question before a restart'
    )[-1].click()
    page.until(lambda: not driver.find_elements(By.CSS_SELECTOR, '.jp-Dialog'), 'the restart')
    page.run_all()
    page.click('Continue')
    answer_by_keys(page)
    page.until(lambda: page.says('Finished: 10 of 10 tiles'), 'the end')
    page.until(lambda: page.says('The network named 10 of 10 tiles, 10 of them rightly'), 'the network beside it')
    page.until(lambda: page.says('95 % interval') and page.says('you said cannot tell'), 'the look back')
    shot(driver, 'trial_end')

    got = read_judgements(work / 'trials' / 'browser_pre.csv', tiles=open_tiles(work / 'store'))
    design = read_json(work / 'trials' / 'browser_pre.json')
    assert got.trial.tolist() == list(range(1, 11))
    assert got.answer.tolist() == CLICKS
    assert got.tile.tolist() == design['tiles']
    assert got.kind.eq('human').all() and got.seconds.between(0.3, 60).all()

    page.open(
        f'{url}/lab/workspaces/study/tree/gallery.ipynb?token=trial'
    )  # a workspace of its own: run-all goes to the one notebook that is open
    page.run_all()
    page.click('Begin')
    for click, says in [('Next', 'Page 1 of 2'), ('Back', 'Page 2 of 2'), ('Close', 'Page 1 of 2')]:
        page.until(lambda: page.says(says), says)
        page.picture()
        html = driver.page_source
        assert not [s for s in secrets if s in html], 'the gallery names a photograph'
        shot(driver, f'gallery_{click}')
        time.sleep(0.2)
        page.click(click)
    page.until(lambda: page.says('Closed after'), 'the end of the study')
    log = read_csv(work / 'trials' / 'browser_gallery.csv')
    assert (
        log.page.astype(int).tolist() == [1] * 4 + [2] * 4 + [1] * 4
        and log.seconds.astype(float).between(0.15, 60).all()
    )
    assert set(log.tile) == set(read_json(work / 'trials' / 'browser_gallery.json')['tiles']) and not set(
        log.tile
    ) & set(got.tile)


# ---- the panels

NUMBERS = """import numpy as np, pandas as pd
from celldeath_nb.panels import Browse, SetUp, Tune
from celldeath_nb.simulate.toys import Drawn
rng = np.random.default_rng(0)
truth = np.repeat(['CPT', 'DMSO'], 60)
p = np.clip(np.where(truth == 'CPT', .6, .4) + rng.normal(0, .2, 120), .01, .99)
preds = pd.DataFrame(dict(tile=[f'a{i:03}.png#0,0' for i in range(120)], field=[f'a{i:03}.png' for i in range(120)],
    well=[str(i // 10) for i in range(120)], label=truth, p_CPT=p, p_DMSO=1 - p))
preds['pred'] = np.where(p > .5, 'CPT', 'DMSO')
store = Drawn(rng.integers(60, 190, (120, 96, 128), dtype=np.uint8), preds[['tile', 'field', 'well', 'label']])"""
ROAD = "from celldeath_nb.panels import SetUp\nSetUp('pictures', 'road', epochs=2, device='cpu')"


def shown(page, text):
    return text in page.d.find_element(By.TAG_NAME, 'body').text


@pytest.mark.long
def test_a_threshold_and_mislabeled_tiles(lab, driver):
    url, work = lab
    make_notebook(work / 'panels.ipynb', [NUMBERS, 'Tune(preds)', "Browse(preds, store, 'wrong.csv', n=4)"])
    driver.set_script_timeout(180)  # the cells import torch
    page = Page(driver)
    page.open(f'{url}/lab/workspaces/panels/tree/panels.ipynb?token=trial')
    page.run_all()
    page.until(lambda: shown(page, 'operating_point(preds, 0.5'), 'the call of the threshold')
    price = driver.find_elements(By.CSS_SELECTOR, '.widget-text input[type=number]')[0]
    price.send_keys(Keys.CONTROL, 'a')
    price.send_keys('6', Keys.ENTER)
    page.click('Lowest cost')
    page.until(lambda: not shown(page, 'operating_point(preds, 0.5,'), 'another threshold')
    shot(driver, 'tune')
    page.click('Next')
    page.until(lambda: shown(page, 'page 2 of'), 'the second page')
    tick = driver.find_elements(By.CSS_SELECTOR, '.widget-checkbox input')[1]
    driver.execute_script('arguments[0].scrollIntoView({block: "center"})', tick)
    tick.click()
    shot(driver, 'browse')
    page.click('Save')
    page.until(lambda: shown(page, '1 ticked tiles are in wrong.csv'), 'the file')
    got = read_csv(work / 'wrong.csv')
    assert len(got) == 1 and got.label[0] != got.pred[0]


@pytest.mark.long
def test_from_a_folder_to_a_report(lab, driver):
    url, work = lab
    drawn = dict(lines=('U2OS',), experiments=3, wells=1, sites=2, size=(120, 160), workers=1)
    sample_data('simulated', work / 'pictures', **drawn)
    before = {o: o.stat().st_mtime_ns for o in (work / 'pictures').rglob('*')}
    make_notebook(work / 'form.ipynb', [ROAD])
    driver.set_script_timeout(180)  # the cells import torch
    page = Page(driver)
    page.open(f'{url}/lab/workspaces/form/tree/form.ipynb?token=trial')
    page.run_all()
    page.until(lambda: shown(page, '12 photographs'), 'what was read')
    words = driver.find_elements(By.CSS_SELECTOR, '.widget-text input[type=text]')[0]
    words.send_keys('CPT, DSMO', Keys.ENTER)
    page.click('Look')
    page.until(lambda: shown(page, "'DSMO' fits no file"), 'the refusal')
    words.send_keys(Keys.CONTROL, 'a')
    words.send_keys('CPT, DMSO', Keys.ENTER)
    page.click('Split')
    page.until(lambda: shown(page, 'Held out: experiment=N3'), 'the split')
    shot(driver, 'setup_split')
    page.click('Take the road')
    page.until(lambda: driver.find_elements(By.CSS_SELECTOR, 'iframe[srcdoc]'), 'the report', 240)
    assert shown(page, 'finished')
    driver.execute_script(
        'arguments[0].scrollIntoView({block: "center"})', driver.find_element(By.CSS_SELECTOR, 'iframe[srcdoc]')
    )
    frame = driver.find_element(By.CSS_SELECTOR, 'iframe[srcdoc]')
    driver.switch_to.frame(frame)
    page.until(lambda: driver.find_elements(By.CSS_SELECTOR, 'svg, h1'), 'the page of the report')
    assert 'experiment=N3' in driver.find_element(By.TAG_NAME, 'body').text
    driver.switch_to.default_content()
    shot(driver, 'setup_report')
    assert (work / 'road' / 'report.html').is_file()
    assert before == {o: o.stat().st_mtime_ns for o in (work / 'pictures').rglob('*')}
