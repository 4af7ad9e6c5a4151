"""What stands in deploy/ is valid, is of one piece with the server, and starts it as it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import typer.main
import yaml

from penstock.cli import cli
from penstock.serve.metrics import Metrics
from penstock.serve.openapi import document
from penstock.serve.server import DRAIN

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text())
CUSTOM = {"VerticalPodAutoscaler"}
"""Kinds that a cluster gets with an add-on; their schemas come with that."""


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Containerfile and their arguments, comments and line ends removed."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


CONTAINERFILE = instructions((DEPLOY / "Containerfile").read_text())


def all_of(word: str) -> list[str]:
    return [rest for name, rest in CONTAINERFILE if name == word]


def manifests() -> dict[str, dict[str, Any]]:
    """Every Kubernetes manifest, by kind."""
    files = [path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml"]
    found = [part for path in files for part in yaml.safe_load_all(path.read_text())]
    by_kind = {part["kind"]: part for part in found}
    assert len(by_kind) == len(found)
    return by_kind


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of these arguments."""
    name, *rest = arguments
    command = typer.main.get_command(cli).commands[name]  # type: ignore[attr-defined]
    return dict(command.make_context(name, list(rest)).params)


def routes() -> set[str]:
    return set(document({"streams": {}, "decisions": [], "verdicts": [], "views": []})["paths"])


def seconds(text: str) -> int:
    """A span such as "45s" or "10m"."""
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def test_the_image_is_built_in_stages_from_pinned_bases() -> None:
    """What builds is not in what runs; a base is named to its patch version; nothing comes from an address."""
    bases = [rest.split() for rest in all_of("FROM")]
    assert len(bases) >= 2
    for base in bases:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", base[0]), base
    assert all_of("ADD") == []
    assert not any(re.search(r"curl|wget|https?://", run) for run in all_of("RUN"))
    stages = {base[2] for base in bases if len(base) == 3}
    assert any(f"--from={stage} " in rest for rest in all_of("COPY") for stage in stages)


def test_what_the_image_copies_is_there_and_is_not_ignored() -> None:
    """Every source of a COPY exists in the repository and reaches the build."""
    lines = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    for rest in all_of("COPY"):
        if not rest.startswith("--from="):
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch(source, pattern) for pattern in kept), source


def test_the_image_runs_without_root_and_ends_when_told() -> None:
    """The last user is a number other than 0; the home is a volume; SIGTERM is what the server drains on."""
    assert int(all_of("USER")[-1].split(":")[0]) > 0
    assert all_of("STOPSIGNAL") == ["SIGTERM"]
    assert parsed(json.loads(all_of("CMD")[-1]))["home"] == Path(all_of("VOLUME")[-1])
    ends = [word for word, _ in CONTAINERFILE]
    assert ends.index("USER") > max(at for at, word in enumerate(ends) if word == "RUN")


def test_the_image_starts_is_healthy_and_drains(tmp_path: Path) -> None:
    """Its command serves without a home of the user's, its health check passes, and SIGTERM ends it well."""
    home, scratch = tmp_path / "data", tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "app").mkdir()
    given = [
        str(home) if part == "/data" else "0" if part == "8000" else part for part in json.loads(all_of("CMD")[-1])
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TMPDIR": str(scratch)}
    server = subprocess.Popen(
        [sys.executable, "-m", "penstock.cli", *given, "--json"], cwd=tmp_path / "app", stdout=subprocess.PIPE,
        text=True, env=environment | {k: v for k, v in os.environ.items() if k == "PYTHONPATH"},
    )  # fmt: skip
    assert server.stdout is not None
    try:
        address = urlsplit(json.loads(server.stdout.readline())["url"])
        check = json.loads(all_of("HEALTHCHECK")[-1].partition("CMD ")[2])
        assert check[0] == "python"
        code = check[2].replace(":8000/", f":{address.port}/")
        done = subprocess.run([sys.executable, *check[1:2], code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        code_at_end = server.wait(timeout=DRAIN + 30)
        server.stdout.close()
    assert code_at_end == 0
    assert list((tmp_path / "app").iterdir()) == []
    assert list(scratch.iterdir()) == []


def test_the_health_check_asks_an_address_of_the_server() -> None:
    [check] = all_of("HEALTHCHECK")
    [path] = re.findall(r"http://127\.0\.0\.1:8000(/\w+)", check)
    assert path in routes()


def test_compose_is_valid_and_serves_as_the_image_does() -> None:
    """The file fits the Compose specification's schema; what it mounts is there; the server may drain."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    jsonschema.Draft7Validator(COMPOSE).validate(compose)
    service = compose["services"]["penstock"]
    assert parsed(service["command"])["home"] == Path("/data")
    assert "data:/data" in service["volumes"]
    assert service["read_only"] is True
    assert any(mount.startswith("/tmp") for mount in service["tmpfs"])
    assert seconds(service["stop_grace_period"]) > DRAIN + 5
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    # Nothing but this machine reaches what asks for no token.
    assert all(port.startswith("127.0.0.1:") for part in compose["services"].values() for port in part["ports"])
    for part in compose["services"].values():
        for volume in part["volumes"]:
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or source.startswith("${") or (DEPLOY / source).exists(), source
        assert part["image"].rpartition(":")[2] not in ("latest", "")


def test_compose_with_an_unknown_key_is_refused() -> None:
    """The schema is one that would notice a mistake."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    compose["services"]["penstock"]["read_onyl"] = True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(COMPOSE).validate(compose)


@pytest.mark.parametrize("kind", sorted(set(manifests()) - CUSTOM))
def test_manifests_are_valid(kind: str) -> None:
    """Each fits the API's own schema, unknown keys refused."""
    kubernetes_validate.validate(manifests()[kind], kubernetes_validate.latest_version(), strict=True)


def test_a_manifest_with_an_unknown_key_is_refused() -> None:
    wrong = manifests()["StatefulSet"]
    wrong["spec"]["template"]["spec"]["containers"][0]["securtyContext"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_kustomize_takes_every_manifest_that_needs_no_add_on() -> None:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    kinds = {yaml.safe_load((KUBERNETES / name).read_text())["kind"] for name in listed}
    assert kinds == set(manifests()) - CUSTOM


def test_the_documented_overlay_names_what_is_there() -> None:
    """The image and the ConfigMap that a user's own kustomization brings are those that the pod uses."""
    [text] = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE | re.DOTALL)
    overlay = yaml.safe_load(text)
    pod = manifests()["StatefulSet"]["spec"]["template"]["spec"]
    assert overlay["images"][0]["name"] == pod["containers"][0]["image"].partition(":")[0]
    maps = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert {part["name"] for part in overlay["configMapGenerator"]} == maps


def test_there_is_one_writer_whatever_scales() -> None:
    """One replica; nothing scales it sideways; its workers follow its cores, which is what may grow."""
    found = manifests()
    assert found["StatefulSet"]["spec"]["replicas"] == 1
    assert "HorizontalPodAutoscaler" not in found
    target = found["VerticalPodAutoscaler"]["spec"]["targetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", found["StatefulSet"]["metadata"]["name"])
    [container] = found["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    [policy] = found["VerticalPodAutoscaler"]["spec"]["resourcePolicy"]["containerPolicies"]
    assert policy["containerName"] == container["name"]
    [workers] = container["env"]
    assert workers["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"
    given = [
        container["resources"]["limits"]["cpu"] if part == f"$({workers['name']})" else part
        for part in container["args"]
    ]
    assert parsed(given)["workers"] == 2


def test_the_pod_is_locked_down_and_can_still_write_its_home() -> None:
    """No root, no capabilities, a read-only root; a volume or scratch where the server writes; time to drain."""
    spec = manifests()["StatefulSet"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == int(all_of("USER")[-1].split(":")[0])
    # A recursive change of modes would open the operator's token to the group.
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    known = {volume["name"] for volume in pod["volumes"]}
    claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    assert set(mounts.values()) == known | claims
    assert mounts[parsed([*container["args"][:-1], "2"])["home"].as_posix()] in claims
    assert "/tmp" in mounts
    assert pod["terminationGracePeriodSeconds"] > DRAIN + 5


def test_probes_ask_addresses_of_the_server() -> None:
    """Traffic waits for /readyz, only a dead server is started again, and a slow start is waited for."""
    [container] = manifests()["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    assert set(paths.values()) <= routes()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {container[f"{name}Probe"]["httpGet"]["port"] for name in paths} == set(ports)
    assert ports["http"] == parsed([*container["args"][:-1], "2"])["port"]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600
    notes = manifests()["StatefulSet"]["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/path"] in routes()
    assert int(notes["prometheus.io/port"]) in ports.values()


def test_selectors_find_the_pod() -> None:
    found = manifests()
    labels = found["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    for part in (found["StatefulSet"]["spec"]["selector"], found["PodDisruptionBudget"]["spec"]["selector"]):
        assert part == {"matchLabels": labels}
    assert found["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": labels}
    assert found["StatefulSet"]["spec"]["serviceName"] == found["Service"]["metadata"]["name"]


def test_alerts_read_metrics_that_a_server_has() -> None:
    """Every metric of the rules is one that a server exposes, or one that they record themselves."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    exposed = set(re.findall(r"^# TYPE (penstock_\w+)", Metrics().text().decode(), re.MULTILINE))
    used = {name for rule in rules for name in re.findall(r"\bpenstock[_:]\w+", rule["expr"])}
    assert "penstock_worker_busy_seconds_total" in used
    assert {re.sub(r"_bucket$", "", name) for name in used} <= exposed | recorded
    assert all(rule["annotations"]["summary"] for rule in rules if "alert" in rule)
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    [job] = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["penstock:8000"]}]
