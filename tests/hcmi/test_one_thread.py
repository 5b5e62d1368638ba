import pytest
import torch

from hcmi.one_thread import one_thread


def test_work_on_one_thread_leaves_the_others_as_they_were():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == before
