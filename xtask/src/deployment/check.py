"""Checks the chart and the manifests, with Helm's own engine and Kubernetes' own schemas. Run by `cargo xtask deployment`.

Each check that is made is one line `test NAME ... ok` or `test NAME ... FAILED`, and what is wrong.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import helm_python
import kubernetes_validate
import yaml

# The oldest that the chart takes, the last without `appArmorProfile`, and the newest that the package knows.
KUBERNETES = ["1.25", "1.29", kubernetes_validate.latest_version()]
# `appArmorProfile` is a field since then; the manifests have it.
MANIFESTS = ["1.30", kubernetes_validate.latest_version()]
# Their schemas are not Kubernetes' own.
OPERATOR = "monitoring.coreos.com/"

root, kustomize = pathlib.Path(sys.argv[1]), sys.argv[2]
chart = root / "deploy/helm/tellwire"
passed = failed = 0


def check(name, wrong):
    """`wrong` is a list of what is wrong."""
    global passed, failed
    print(f"test {name} ... {'FAILED' if wrong else 'ok'}")
    for text in wrong:
        print(f"    {text}")
    failed += bool(wrong)
    passed += not wrong


def values(path):
    return yaml.safe_load(path.read_text()) or {}


def rendered(given, name="tellwire", namespace="tellwire", source=chart):
    files = helm_python.Chart.load(source).render(given, name=name, namespace=namespace)
    texts = [text for path, text in sorted(files.items()) if not path.endswith("NOTES.txt")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def rendered_for(version, given):
    """As Helm does it for a cluster of this version, which its engine here cannot be told: the chart's templates are."""
    asked = ".Capabilities.KubeVersion.Version"
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "tellwire"
        shutil.copytree(chart, copy)
        for path in (copy / "templates").iterdir():
            path.write_text(path.read_text().replace(asked, f'"v{version}"'))
        return rendered(given, source=copy)


def built(folder):
    text = subprocess.run([kustomize, "build", root / "deploy/kubernetes" / folder], check=True, capture_output=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def invalid(documents, versions):
    wrong = []
    for document in documents:
        if document["apiVersion"].startswith(OPERATOR):
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except Exception as error:
                wrong.append(f"{document['kind']} for {version}: {error}")
    return wrong


def pod(documents):
    """The pod, and the names of what the chart and the manifests label alike."""
    daemon_set = next(document for document in documents if document["kind"] == "DaemonSet")
    return {"template": daemon_set["spec"]["template"], "update": daemon_set["spec"]["updateStrategy"]}


def differences(one, other, path=""):
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [text for key in keys for text in differences(one.get(key), other.get(key), f"{path}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [text for index, (a, b) in enumerate(zip(one, other)) for text in differences(a, b, f"{path}[{index}]")]
    return [] if one == other else [f"{path}: manifests {one!r}, chart {other!r}"]


for file in sorted((chart / "ci").glob("*.yaml")):
    given, name = values(file), file.stem
    report = helm_python.chart.lint(str(chart), given, strict=True, namespace="tellwire")
    # 2 is a warning, 3 an error. That a chart has no icon is information.
    wrong = [message["error"] for message in report["messages"] if message["severity"] >= 2]
    check(f"helm_lint_{name}", wrong + report.get("errors", []))
    try:
        documents = rendered(given)
        check(f"helm_template_{name}", invalid(documents, MANIFESTS if given.get("privileged") is False else KUBERNETES))
        monitors = [d for d in documents if d["kind"] in ("PodMonitor", "ServiceMonitor")]
        endpoints = [e for d in monitors for key in ("podMetricsEndpoints", "endpoints") for e in d["spec"].get(key, [])]
        check(f"monitors_honor_labels_{name}", [str(e) for e in endpoints if not e.get("honorLabels")])
    except Exception as error:
        check(f"helm_template_{name}", [str(error)])

# Without `privileged` a runtime's profile would keep the agent from what it is for: the annotation says so where the field is
# not there yet, and never both.
ANNOTATION = "container.apparmor.security.beta.kubernetes.io/tellwire"
for version in KUBERNETES:
    documents = rendered_for(version, values(chart / "ci/capabilities.yaml"))
    template = pod(documents)["template"]
    said = (
        template["metadata"]["annotations"].get(ANNOTATION),
        template["spec"]["containers"][0]["securityContext"].get("appArmorProfile"),
    )
    has_field = int(version.split(".")[1]) >= 30
    wanted = (None, {"type": "Unconfined"}) if has_field else ("unconfined", None)
    check(f"no_profile_of_apparmor_on_{version}", invalid(documents, [version]) + ([] if said == wanted else [str(said)]))
    annotations = pod(rendered_for(version, {}))["template"]["metadata"]["annotations"]
    check(f"privileged_asks_for_no_profile_on_{version}", [ANNOTATION] if ANNOTATION in annotations else [])

for file in sorted((chart / "ci/refused").glob("*.yaml")):
    try:
        helm_python.Chart.load(chart).validate_schema(values(file))
        check(f"schema_refuses_{file.stem}", ["it is accepted"])
    except helm_python.HelmError:
        check(f"schema_refuses_{file.stem}", [])

# The names that the component has.
SECRETS = {
    "http": {"tls": {"secretName": "tellwire-tls", "serverName": "tellwire.tellwire.svc"}, "token": {"secretName": "tellwire-token"}},
    "podMonitor": {"enabled": True},
}
for folder, given in [("base", {}), ("capabilities", {"privileged": False}), ("protected", SECRETS)]:
    documents = built(folder)
    check(f"kustomize_{folder}", invalid(documents, MANIFESTS if folder == "capabilities" else KUBERNETES))
    check(f"manifests_and_chart_agree_{folder}", differences(pod(documents), pod(rendered(given))))
def endpoints_of(documents):
    return [e for d in documents if d["kind"] == "PodMonitor" for e in d["spec"]["podMetricsEndpoints"]]


check("protected_monitors_agree", differences(endpoints_of(built("protected")), endpoints_of(rendered(SECRETS))))
check("protected_has_a_monitor", [] if len(endpoints_of(built("protected"))) == 1 else ["not one"])
monitors = [document["kind"] for document in built("monitoring")]
check("kustomize_monitoring", [] if monitors == ["PodMonitor"] else [str(monitors)])

documents = built("../grafana")
check("kustomize_dashboards", invalid(documents, KUBERNETES))
shipped = {path.name: path.read_text() for path in (root / "deploy/grafana").glob("*.json")}


def dashboards(documents):
    """Those that Grafana's sidecar finds: by its label, one to a ConfigMap, each within what one may hold."""
    labelled = [d for d in documents if d["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    return {name: text for d in labelled for name, text in d["data"].items() if len(text) < 1_000_000}


check("kustomize_has_every_dashboard", [] if dashboards(documents) == shipped else [str(sorted(dashboards(documents)))])
charted = dashboards(rendered({"dashboards": {"enabled": True}}))
check("the_chart_has_every_dashboard", [] if {k: v.strip() for k, v in charted.items()} == {k: v.strip() for k, v in shipped.items()} else [str(sorted(charted))])
check("dashboards_are_off_where_nobody_asks", list(dashboards(rendered({}))))

protected = rendered(values(chart / "ci/protected.yaml"))
container = pod(protected)["template"]["spec"]["containers"][0]
schemes = [container[probe]["httpGet"].get("scheme") for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
check("probes_come_by_tls_where_it_is_on", [] if schemes == ["HTTPS"] * 3 else [str(schemes)])
endpoints = [e for d in protected if "Monitor" in d["kind"] for key in ("podMetricsEndpoints", "endpoints") for e in d["spec"].get(key, [])]
wanted = {"scheme": "https", "authorization": {"credentials": {"name": "tellwire-token", "key": "token"}}}
check("monitors_come_by_tls_with_the_token", [str(e) for e in endpoints if {k: e.get(k) for k in wanted} != wanted or "ca" not in e["tlsConfig"]] or ([] if len(endpoints) == 2 else ["not two"]))
check("monitors_name_the_cluster", [str(e) for e in endpoints if {"targetLabel": "cluster", "replacement": "production"} not in e["relabelings"]])

# What says yes to everything would pass all of the above.
misspelled = built("base")
misspelled[1]["spec" if "spec" in misspelled[1] else "dataa"] = {"hostPid": True}
check("the_validator_refuses_what_is_misspelled", [] if len(invalid(misspelled, KUBERNETES)) >= len(KUBERNETES) else ["it does not"])

notes = {"namespace": {"create": True}}
objects = sorted(document["kind"] for document in rendered(notes))
check("no_rights_in_the_api", [kind for kind in objects if "Role" in kind])
shipped = (root / "deploy/prometheus/rules.yml").read_text()
copied = (chart / "files/rules.yml").read_text()
check("rules_of_the_chart_are_those_that_are_tested", [] if shipped == copied else ["files/rules.yml differs from deploy/prometheus/rules.yml"])

print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed")
sys.exit(bool(failed))
