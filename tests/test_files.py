"The ground: what is written is whole, comes back as it was, and is never lost between two names."

import os

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from celldeath_nb.files import new_folder, read_csv, swap_in, sync, write_csv

quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def folder(path, text):
    path.mkdir()
    (path / 'a.txt').write_text(text)
    return path


@pytest.mark.parametrize('how', ['swap_in', 'new_folder'])
def test_a_stop_between_two_renames_loses_nothing(how, tmp_path):
    "Only the hidden old folder is there, and what comes next fails: the old one has its name again."
    folder(tmp_path / '.run.old', 'months of work')
    with pytest.raises(OSError):
        if how == 'swap_in':
            swap_in(tmp_path / 'nowhere', tmp_path / 'run')
        else:
            with new_folder(tmp_path / 'run', overwrite=True):
                raise OSError(28, 'No space left on device')
    assert (tmp_path / 'run' / 'a.txt').read_text() == 'months of work'
    assert [o.name for o in tmp_path.iterdir()] == ['run']


def test_the_old_folder_goes_when_both_are_there(tmp_path):
    folder(tmp_path / '.run.old', 'oldest')
    folder(tmp_path / 'run', 'old')
    swap_in(folder(tmp_path / 'new', 'new'), tmp_path / 'run')
    assert (tmp_path / 'run' / 'a.txt').read_text() == 'new' and [o.name for o in tmp_path.iterdir()] == ['run']


def test_a_system_that_opens_no_folder(tmp_path, monkeypatch):
    keep = os.open

    def like_windows(path, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(13, 'Permission denied', str(path))
        return keep(path, *args, **kwargs)

    monkeypatch.setattr(os, 'open', like_windows)
    sync(tmp_path)
    with new_folder(tmp_path / 'run') as tmp:
        (tmp / 'a.txt').write_text('whole')
    assert (tmp_path / 'run' / 'a.txt').read_text() == 'whole'


text = st.text(st.characters(codec='utf-8', exclude_characters='\0'), min_size=1, max_size=8)


@quick
@given(st.lists(st.tuples(text, text), min_size=1, max_size=5), text)
def test_every_text_comes_back_as_it_was(tmp_path, rows, name):
    df = pd.DataFrame(rows, columns=[name, name + '2'], dtype=object)
    back = read_csv(write_csv(df, tmp_path / 't.csv'), keep_default_na=False, dtype=str).astype(object)
    pd.testing.assert_frame_equal(back, df)
