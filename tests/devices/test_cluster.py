"""Detection of a process's cluster from flags and the environment."""

import pytest

from hvq_jax.devices.cluster import Membership, agreed, find_membership, true_on_all
from hvq_jax.errors import UserError

SLURM = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "8", "SLURM_PROCID": "3"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
KUBERNETES = {"HVQ_COORDINATOR": "run-0.run:1234", "HVQ_NUM_PROCESSES": "2", "HVQ_PROCESS_ID": "1"}


def found(environment, explicit=Membership(), *, has_tpu=False):  # noqa: B008 - frozen
    return find_membership(environment, explicit, has_tpu=has_tpu)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "8"}, None),  # the batch script itself, or an allocation's shell
        ({**SLURM, "SLURM_NTASKS": "1"}, None),
        (SLURM, Membership()),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}, Membership()),
        ({**OPEN_MPI, "PMIX_NAMESPACE": "prterun-node-a7-5000@1"}, Membership("node-a7:62344", 4, 2, 1)),
        (
            {**OPEN_MPI, "PMIX_NAMESPACE": "prterun-laptop-5000@1", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
            Membership("localhost:62344", 4, 2, 1),
        ),
        ({**OPEN_MPI, "HVQ_COORDINATOR": "a:1"}, Membership("a:1", 4, 2, 1)),
        (KUBERNETES, Membership("run-0.run:1234", 2, 1)),
        ({**KUBERNETES, **SLURM}, Membership("run-0.run:1234", 2, 1)),
        ({**KUBERNETES, "HVQ_NUM_PROCESSES": "1", "HVQ_PROCESS_ID": "0"}, None),
    ],
)
def test_what_the_environment_says(environment, expected):
    assert found(environment) == expected


def test_a_tpu_machine_asks_its_pod():
    assert found({}, has_tpu=True) == Membership()


def test_flags_come_first():
    assert found(KUBERNETES, Membership("b:2", 3, 0)) == Membership("b:2", 3, 0)
    assert found(SLURM, Membership("b:2", 3, 0)) == Membership("b:2", 3, 0)


@pytest.mark.parametrize(
    ("environment", "explicit", "says"),
    [
        ({}, Membership("a:1"), "must be given together"),
        ({}, Membership(None, 2, 0), "must be given together"),
        ({"HVQ_NUM_PROCESSES": "2"}, Membership(), "must be given together"),
        ({}, Membership("a", 2, 0), "must be HOST:PORT"),
        ({}, Membership(""), "must be HOST:PORT"),
        ({"HVQ_COORDINATOR": ""}, Membership(), "must be HOST:PORT"),
        ({"HVQ_COORDINATOR": "a:1"}, Membership("", 2, 0), "must be HOST:PORT"),
        ({}, Membership("a:1", 2, 2), "must be between 0 and 1"),
        ({}, Membership("a:1", 2, -1), "must be between 0 and 1"),
        ({**KUBERNETES, "HVQ_PROCESS_ID": "²"}, Membership(), "HVQ_PROCESS_ID=²: must be an integer"),
        ({**KUBERNETES, "HVQ_PROCESS_ID": "first"}, Membership(), "HVQ_PROCESS_ID=first: must be an integer"),
        (OPEN_MPI, Membership(), "add --coordinator=HOST:PORT"),
    ],
)
def test_what_is_missing_is_named(environment, explicit, says):
    with pytest.raises(UserError, match=says):
        found(environment, explicit)


def test_a_process_on_its_own_agrees_with_itself():
    assert true_on_all(True)
    assert not true_on_all(False)
    with pytest.raises(UserError, match="mine"), agreed():
        raise UserError("mine")
