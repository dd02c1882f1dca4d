import pytest

from tests.training.saved_states import saved


@pytest.fixture(scope="session")
def three_steps(tmp_path_factory):
    """A folder with the checkpoints 1, 2 and 3, of which 2 is the best; to be read, not changed."""
    folder = tmp_path_factory.mktemp("three_steps") / "checkpoints"
    saved(folder, [0.3, 0.1, 0.2], keep=3).close()
    return folder
