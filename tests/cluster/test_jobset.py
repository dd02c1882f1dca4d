"""The Kubernetes manifest in its three variants, as the API server would read it and as `train.py` would."""

import copy
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from hvq_jax.devices.cluster import Membership, find_membership
from hvq_jax.runs.flags import parse_command_line

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "cluster" / "jobset.yaml"

# Maps with arbitrary keys.
FREE_FORM = {"annotations", "limits", "nodeSelector", "requests"}


def variant(name):
    """Return the manifest as produced by the command in its header."""
    commands = {
        comment: command for command, comment in re.findall(r"^#   (\S.*?)  +# (.*)", MANIFEST.read_text(), re.M)
    }
    command = {"gpu": "NVIDIA GPUs", "cpu": "CPUs", "tpu": "a TPU slice of GKE"}[name]
    shown = re.sub(r"kubectl apply -f ", "cat ", commands[command])
    made = subprocess.run(["bash", "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    return yaml.safe_load(made.stdout)


@pytest.fixture(scope="module", params=["gpu", "cpu", "tpu"])
def document(request):
    return variant(request.param)


def as_the_api_reads(document):
    """Return `document` after a round trip through the types of the API, which drop unknown fields."""
    # Not where every worker imports all tests: it has hundreds of classes.
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    return json.loads(JobsetV1alpha2JobSet.from_dict(document).to_json())


def job_spec(document):
    return document["spec"]["replicatedJobs"][0]["template"]["spec"]


def container(document):
    return job_spec(document)["template"]["spec"]["containers"][0]


def places(node, path=()):
    """The path of every field."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if not (path and path[-1] in FREE_FORM):
            if isinstance(node, dict):
                yield (*path, key)
            yield from places(child, (*path, key))


def parent_of(document, path):
    for key in path[:-1]:
        document = document[key]
    return document


def test_every_field_is_one_of_the_api(document):
    assert as_the_api_reads(document) == document


def test_no_field_could_be_misspelt_unseen():
    document = variant("gpu")
    for path in places(document):
        misspelt = copy.deepcopy(document)
        parent = parent_of(misspelt, path)
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
        try:
            read = as_the_api_reads(misspelt)
        except ValueError:  # a required field is missing
            continue
        assert read != misspelt, path


def test_a_number_in_place_of_a_text_is_refused():
    document = variant("gpu")
    container(document)["env"][1]["value"] = 4
    with pytest.raises(ValueError, match="valid string"):
        as_the_api_reads(document)


def test_the_pods_are_the_processes_of_one_cluster():
    document = variant("gpu")
    job = document["spec"]["replicatedJobs"][0]
    hosts = job_spec(document)["completions"]
    for index in range(hosts):
        environment = {}
        for entry in container(document)["env"]:
            source = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
            environment[entry["name"]] = str(index) if "job-completion-index" in source else entry["value"]
        coordinator = f"{document['metadata']['name']}-{job['name']}-0-0.{document['metadata']['name']}:55527"
        expected = Membership(coordinator, hosts, index)
        assert find_membership(environment, Membership(), has_tpu=False) == expected


def test_on_a_tpu_slice_jax_finds_the_hosts_itself():
    assert "env" not in container(variant("tpu"))


def test_all_pods_run_at_once_and_none_comes_back_alone(document):
    spec = job_spec(document)
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    assert spec["backoffLimit"] == 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # or podFailurePolicy is refused
    # Two sets of pods must not hold one workdir.
    assert document["spec"]["failurePolicy"]["restartStrategy"] == "BlockingRecreate"


def test_a_stopped_pod_is_not_taken_for_a_finished_one(document):
    program, *rest = container(document)["command"]
    assert (ROOT / program).samefile(ROOT / "cluster" / "preemptible.sh")
    assert rest == ["python", "train.py"]


def test_the_arguments_are_those_of_train(document, monkeypatch):
    monkeypatch.chdir(ROOT)
    line = parse_command_line(container(document)["args"])
    mount = container(document)["volumeMounts"][0]["mountPath"]
    assert line.workdir.startswith(f"{mount}/")
    assert line.config.data.data_dir.startswith(f"{mount}/")


@pytest.mark.parametrize(
    ("name", "chips"), [("gpu", {"nvidia.com/gpu": 8}), ("cpu", None), ("tpu", {"google.com/tpu": 4})]
)
def test_each_variant_asks_for_its_own_machines(name, chips):
    document = variant(name)
    assert container(document)["resources"].get("limits") == chips
    labels = " ".join(job_spec(document)["template"]["spec"].get("nodeSelector", {}))
    assert ("gke-accelerator" in labels, "gke-tpu" in labels) == (name == "gpu", name == "tpu")
