"""The panels, clicked and typed through in JupyterLab: a threshold, mislabeled tiles, and a whole road from a form.

Needs what `test_trial_in_browser` needs. Set CELLDEATH_SCREENSHOTS to a folder to keep the screenshots.
"""

import pytest

browser = pytest.importorskip('test_trial_in_browser', reason='no browser: see test_trial_in_browser')
from test_trial_in_browser import By, Page, driver, lab, make_notebook, shot  # noqa: F401  (fixtures)

from selenium.webdriver.common.keys import Keys

from celldeath_nb.files import read_csv
from celldeath_nb.simulate.samples import sample_data

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
