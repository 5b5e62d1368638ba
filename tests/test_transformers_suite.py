import io
import tarfile

import pytest
import transformers
import transformers_suite


@pytest.fixture
def without_network(tmp_path, monkeypatch):
    """An empty cache, and nowhere for pip to look."""
    monkeypatch.setenv("HCMI_TEST_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


def test_tests_that_cannot_be_had_are_skipped_with_the_reason(without_network):
    with pytest.raises(pytest.skip.Exception, match=rf"{transformers.__version__}, cannot be had: pip download failed"):
        transformers_suite.load_common_tests("test_modeling_common")
    assert list(without_network.iterdir()) == []


def test_under_ci_that_is_a_failure(without_network, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="cannot be had: pip download failed"):
        transformers_suite.load_common_tests("test_modeling_common")


def test_an_archive_of_another_shape_is_told(without_network, monkeypatch):
    archive = without_network / "transformers-0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("transformers-0/tests/test_other.py"), io.BytesIO())
    monkeypatch.setattr(transformers_suite, "_download", lambda folder: archive)
    with pytest.raises(pytest.skip.Exception, match=r"no tests/test_modeling_common\.py"):
        transformers_suite.load_common_tests("test_modeling_common")
