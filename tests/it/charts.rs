//! Helm chart, rendered by real Helm 3 and 4 and checked with Kubernetes' own schemas, checkov and
//! the gateway itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{
    flask::in_repository,
    gateway::run,
    tools::{self, installed, output_text},
};

const CHART: &str = "charts/simplechat-gateway";
const EXAMPLES: [&str; 4] = ["front", "front-managed", "sidecar", "sidecar-files"];
const HELMS: [&str; 2] = ["helm3", "helm4"];
const KUBERNETES: [&str; 5] = ["1.29", "1.31", "1.33", "1.35", "1.37"];

/// Helm is installed for Linux on amd64 only.
fn helm_is_available() -> bool {
    let is_supported = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    if !is_supported {
        println!("skipped: there is no Helm for this platform");
    }
    is_supported
}

fn helm(which: &str, arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(in_repository("target/helm").join(which));
    command.env_clear().env("HOME", home.path()).current_dir(in_repository("")).args(arguments);
    command.output().unwrap()
}

fn example(name: &str) -> String {
    format!("{CHART}/examples/{name}.yaml")
}

/// Runs `helm template` with additional arguments.
fn try_template(which: &str, name: &str, more: &[&str]) -> Output {
    let file = example(name);
    let fixed = ["template", "rel", CHART, "--namespace", "ns1", "--values", &file];
    helm(which, &[&fixed, more].concat())
}

fn template(which: &str, name: &str, more: &[&str]) -> String {
    let output = try_template(which, name, more);
    assert!(output.status.success(), "{which} {name} {more:?}: {}", output_text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Documents of a YAML file.
fn documents(path: &Path) -> Vec<Value> {
    let script = "import json, sys, yaml\n\
        json.dump([it for it in yaml.safe_load_all(open(sys.argv[1])) if it], sys.stdout)";
    let mut command = Command::new(installed("charts", "python"));
    let output = command.args(["-c", script]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", output_text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn yaml(text: &str) -> Vec<Value> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    documents(file.path())
}

/// Manifests of an example, by kind and name.
struct Manifests(BTreeMap<(String, String), Value>);

impl Manifests {
    fn of(text: &str) -> Self {
        let named = yaml(text).into_iter().map(|it| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            ((text(&it["kind"]), text(&it["metadata"]["name"])), it)
        });
        Self(named.collect())
    }

    fn render(name: &str, more: &[&str]) -> Self {
        Self::of(&template("helm4", name, more))
    }

    fn all(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|((of, _), _)| of == kind).map(|(_, it)| it).collect()
    }

    fn the(&self, kind: &str) -> &Value {
        let all = self.all(kind);
        assert_eq!(all.len(), 1, "{kind}");
        all[0]
    }

    fn pod(&self) -> &Value {
        &self.the("Deployment")["spec"]["template"]["spec"]
    }

    fn gateway(&self) -> &Value {
        let containers = self.pod()["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        assert_eq!(containers[0]["name"], "gateway");
        &containers[0]
    }

    fn simplechat(&self) -> &Value {
        &self.pod()["initContainers"][0]
    }
}

/// Environment of a container; values from a Secret are made up.
fn environment(container: &Value) -> BTreeMap<String, String> {
    let entries = container["env"].as_array().unwrap();
    let pairs = entries.iter().map(|entry| {
        let value = entry["value"].as_str().unwrap_or("made-up").to_owned();
        (entry["name"].as_str().unwrap().to_owned(), value)
    });
    let environment: BTreeMap<_, _> = pairs.collect();
    assert_eq!(environment.len(), entries.len(), "no name occurs twice");
    environment
}

fn port_of(address: &str) -> u64 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// Renders the examples as files, for tools that read folders.
fn rendered() -> TempDir {
    // checkov skips folders whose names begin with a dot.
    let folder = tempfile::Builder::new().prefix("charts").tempdir().unwrap();
    for name in EXAMPLES {
        std::fs::write(
            folder.path().join(format!("{name}.yaml")),
            template("helm4", name, &["--kube-version", "1.29.0"]),
        )
        .unwrap();
    }
    folder
}

fn files_in(folder: &TempDir) -> Vec<PathBuf> {
    EXAMPLES.map(|name| folder.path().join(format!("{name}.yaml"))).into()
}

#[test]
fn helm_3_and_helm_4_lint_the_chart_and_render_the_same_manifests() {
    if !helm_is_available() {
        return;
    }
    for name in EXAMPLES {
        for which in HELMS {
            let output = helm(which, &["lint", "--strict", CHART, "--values", &example(name)]);
            assert!(output.status.success(), "{which} {name}: {}", output_text(&output));
        }
        let [old, new] = HELMS.map(|which| Manifests::of(&template(which, name, &[])).0);
        assert!(old.len() >= 4, "{name}");
        assert_eq!(old, new, "{name}");
    }
    // Sidecars that end last need Kubernetes 1.29.
    for which in HELMS {
        let output = try_template(which, "sidecar", &["--kube-version", "1.28.0"]);
        assert!(!output.status.success(), "{which}");
    }
}

fn kubernetes_validate(version: &str, files: &[PathBuf]) -> Output {
    let mut command = Command::new(installed("charts", "kubernetes-validate"));
    command.args(["--strict", "--kubernetes-version", version]).args(files).output().unwrap()
}

#[test]
fn the_rendered_manifests_match_the_kubernetes_schemas() {
    if !helm_is_available() {
        return;
    }
    let folder = rendered();
    let files = files_in(&folder);
    let count: usize = files.iter().map(|file| documents(file).len()).sum();
    for version in KUBERNETES {
        let output = kubernetes_validate(version, &files);
        let text = output_text(&output);
        assert!(output.status.success(), "{version}: {text}");
        // Kinds without a schema print a warning.
        let against = format!("against version {version}");
        let lines: Vec<_> = text.lines().collect();
        let passed =
            lines.iter().filter(|line| line.starts_with("INFO") && line.ends_with(&against));
        assert_eq!((passed.count(), lines.len()), (count, count), "{version}: {text}");
    }
    // Negative control.
    let good = std::fs::read_to_string(&files[1]).unwrap();
    let bad = [
        good.replace("replicas: 2", "replicas: two"),
        good.replace("enableServiceLinks", "enableServiceLink"),
        good.replace("periodSeconds", "period"),
    ];
    for bad in bad {
        assert_ne!(bad, good);
        std::fs::write(&files[1], bad).unwrap();
        assert!(!kubernetes_validate("1.37", &files).status.success());
    }
    std::fs::write(&files[1], good.replace("kind: Service\n", "kind: Servant\n")).unwrap();
    assert!(output_text(&kubernetes_validate("1.37", &files)).contains("Couldn't find schema"));
}

/// Accepted checkov findings, each with its reason.
const EXCEPTIONS: [(&str, &str, &str); 4] = [
    ("CKV_K8S_22", "sidecar", "the paths that SimpleChat writes in its image are not known here"),
    ("CKV_K8S_22", "sidecar-files", "the same"),
    ("CKV_K8S_35", "sidecar", "SimpleChat reads its secrets from the environment only"),
    ("CKV_K8S_35", "sidecar-files", "the same"),
];

/// Failed checks with their files, and the number of checked resources.
fn checkov(folder: &TempDir) -> (BTreeSet<(String, String)>, u64) {
    let report = tools::checkov("kubernetes", folder.path());
    let failed = report["results"]["failed_checks"].as_array().unwrap().iter().map(|check| {
        let file = check["file_path"].as_str().unwrap();
        let file = file.trim_start_matches('/').trim_end_matches(".yaml");
        (check["check_id"].as_str().unwrap().to_owned(), file.to_owned())
    });
    (failed.collect(), report["summary"]["resource_count"].as_u64().unwrap())
}

#[test]
fn checkov_finds_nothing_but_the_exceptions() {
    if !helm_is_available() {
        return;
    }
    let folder = rendered();
    let excepted: BTreeSet<_> =
        EXCEPTIONS.iter().map(|(id, name, _)| ((*id).to_owned(), (*name).to_owned())).collect();
    let (found, count) = checkov(&folder);
    assert_eq!(found, excepted);
    // Each resource, and each pod of a Deployment once more.
    let manifests = files_in(&folder).iter().flat_map(|file| documents(file)).collect::<Vec<_>>();
    let deployments = manifests.iter().filter(|it| it["kind"] == "Deployment").count();
    assert_eq!(count, (manifests.len() + deployments) as u64);
    // Negative control.
    let front = folder.path().join("front.yaml");
    let good = std::fs::read_to_string(&front).unwrap();
    std::fs::write(&front, good.replace("Escalation: false", "Escalation: true")).unwrap();
    assert!(checkov(&folder).0.len() > excepted.len());
}

/// Secret setting whose file a variable names.
fn secret_in_file(name: &str) -> Option<&str> {
    name.strip_suffix("_FILE").filter(|name| *name != "REDIS_CA")
}

/// Runs the gateway with a container's environment; secret files are made up.
async fn run_in(container: &Value, arguments: &[&str], more: &[(&str, &str)]) -> Output {
    let secrets = tempfile::tempdir().unwrap();
    let mut environment = environment(container);
    for (name, value) in &mut environment {
        if secret_in_file(name).is_some() {
            let path = secrets.path().join(name);
            let is_database = name == "DATABASE_URL_FILE";
            let made_up = if is_database { "postgres://u:made-up@h/d" } else { "made-up" };
            std::fs::write(&path, made_up).unwrap();
            *value = path.display().to_string();
        }
    }
    environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let environment: Vec<_> = environment.into_iter().collect();
    run(&environment, arguments).await
}

#[tokio::test]
async fn the_gateway_accepts_the_environment_that_the_chart_sets() {
    if !helm_is_available() {
        return;
    }
    for name in EXAMPLES {
        let manifests = Manifests::render(name, &[]);
        let container = manifests.gateway();
        // `healthcheck` reads all settings, then connects to GATEWAY_LISTEN, where no server
        // listens.
        let output = run_in(container, &["healthcheck"], &[]).await;
        assert!(matches!(output.status.code(), Some(0 | 69)), "{name}: {}", output_text(&output));
        let shown = output_text(&run_in(container, &["settings"], &[]).await);
        for (setting, value) in environment(container) {
            let line = if let Some(secret) = secret_in_file(&setting) {
                format!("{secret}=********\n")
            } else if setting == "REDIS_URL" || setting == "DATABASE_URL" {
                format!("{setting}=********\n")
            } else {
                format!("{setting}={value}\n")
            };
            assert!(shown.contains(&line), "{name}: {line} in {shown}");
        }
        // Negative control.
        let output = run_in(container, &["healthcheck"], &[("GATEWAY_LISTEM", "1")]).await;
        assert_eq!(output.status.code(), Some(78), "{name}");
    }
}

#[test]
fn probes_use_the_listening_port_and_the_grace_period_covers_the_drain() {
    if !helm_is_available() {
        return;
    }
    let document = std::fs::read_to_string(in_repository("openapi/gateway.json")).unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let ports = ["--set", "ports.callers=9090", "--set", "drain.delaySeconds=30"];
    for (name, more) in EXAMPLES.into_iter().flat_map(|name| [(name, &[][..]), (name, &ports[..])])
    {
        let manifests = Manifests::render(name, more);
        let (pod, container) = (manifests.pod(), manifests.gateway());
        let environment = environment(container);
        let port = |name: &str| {
            let all = container["ports"].as_array().unwrap();
            let found = all.iter().find(|port| port["name"] == name);
            found.map(|port| port["containerPort"].as_u64().unwrap())
        };
        let listens_at = port_of(&environment["GATEWAY_LISTEN"]);
        assert_eq!(port("http"), Some(listens_at));
        for (probe, path) in [
            ("startupProbe", "/gateway/health/live"),
            ("livenessProbe", "/gateway/health/live"),
            ("readinessProbe", "/gateway/health/ready"),
        ] {
            assert_eq!(
                container[probe]["httpGet"],
                json!({"path": path, "port": "http"}),
                "{name}"
            );
            assert!(document["paths"][path]["get"].is_object(), "{path}");
        }
        let service = &manifests.the("Service")["spec"];
        assert_eq!(service["ports"].as_array().unwrap().len(), 1);
        assert_eq!(service["ports"][0]["targetPort"], "http");
        let policy = manifests.all("NetworkPolicy")[0];
        assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], listens_at);

        let seconds =
            |name: &str| -> u64 { environment[name].strip_suffix('s').unwrap().parse().unwrap() };
        let drain = seconds("GATEWAY_DRAIN_DELAY") + seconds("GATEWAY_DRAIN_TIMEOUT");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace >= drain + 5, "{name}: {grace} for {drain}");
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
    }
}

#[test]
fn the_ops_listener_is_reachable_by_the_scraper_only() {
    if !helm_is_available() {
        return;
    }
    let annotations = |it: &Manifests| {
        it.the("Deployment")["spec"]["template"]["metadata"]["annotations"].clone()
    };
    let front = Manifests::render("front", &[]);
    let listens_at = environment(front.gateway())["GATEWAY_OPS_LISTEN"].clone();
    assert_eq!(listens_at, "0.0.0.0:9464");
    assert_eq!(annotations(&front)["prometheus.io/port"], port_of(&listens_at).to_string());
    let policy =
        front.0[&("NetworkPolicy".to_owned(), "rel-simplechat-gateway".to_owned())].clone();
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let to_operators: Vec<_> =
        rules.iter().filter(|rule| rule.to_string().contains("9464")).collect();
    assert_eq!(to_operators.len(), 1);
    let from = to_operators[0]["from"].as_array().unwrap();
    assert_eq!(from.len(), 1);
    assert!(from[0]["podSelector"].is_object() && from[0]["namespaceSelector"].is_object());
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));

    for name in ["sidecar", "sidecar-files"] {
        let manifests = Manifests::render(name, &[]);
        assert_eq!(environment(manifests.gateway())["GATEWAY_OPS_LISTEN"], "127.0.0.1:9464");
        assert!(annotations(&manifests).get("prometheus.io/scrape").is_none());
        assert_eq!(manifests.gateway()["ports"].as_array().unwrap().len(), 1);
        assert!(!manifests.the("NetworkPolicy").to_string().contains("9464"));
    }
}

#[test]
fn simplechat_is_reachable_through_the_gateway_only() {
    if !helm_is_available() {
        return;
    }
    for name in ["sidecar", "sidecar-files"] {
        let manifests = Manifests::render(name, &["--set", "simplechat.port=5050"]);
        let theirs = environment(manifests.simplechat());
        assert_eq!(theirs["GUNICORN_BIND"], "127.0.0.1:5050");
        // The second value is the longest token that the gateway accepts, as `check` prints it.
        assert_eq!(
            theirs["GUNICORN_CMD_ARGS"],
            "--forwarder-headers=X-NONE --limit-request-field_size=16408"
        );
        let ours = environment(manifests.gateway());
        assert_eq!(ours["GATEWAY_UPSTREAM_URL"], "http://127.0.0.1:5050");
        // SimpleChat starts first and ends last; its port is not published.
        assert_eq!(manifests.simplechat()["restartPolicy"], "Always");
        assert!(manifests.simplechat().get("ports").is_none());
        for name in ["TENANT_ID", "CLIENT_ID"] {
            assert_eq!(ours[name], theirs[name]);
        }
    }
    let front = Manifests::render("front", &[]);
    let name = "rel-simplechat-gateway-simplechat".to_owned();
    let policy = &front.0[&("NetworkPolicy".to_owned(), name)];
    assert_eq!(policy["metadata"]["namespace"], "chat");
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"], json!({"app": "simplechat"}));
    let [rule] = &policy["spec"]["ingress"].as_array().unwrap()[..] else { panic!("{policy}") };
    let [from] = &rule["from"].as_array().unwrap()[..] else { panic!("{policy}") };
    let selector = &front.the("Deployment")["spec"]["selector"]["matchLabels"];
    assert_eq!(&from["podSelector"]["matchLabels"], selector);
    let namespace = json!({"kubernetes.io/metadata.name": "ns1"});
    assert_eq!(from["namespaceSelector"]["matchLabels"], namespace);
    let own = &front.0[&("NetworkPolicy".to_owned(), "rel-simplechat-gateway".to_owned())];
    assert_eq!(own["spec"]["egress"][1]["ports"], rule["ports"]);
}

#[test]
fn file_sessions_are_shared_within_one_pod_only() {
    if !helm_is_available() {
        return;
    }
    let manifests = Manifests::render("sidecar-files", &[]);
    let deployment = &manifests.the("Deployment")["spec"];
    assert_eq!(
        (&deployment["replicas"], &deployment["strategy"]["type"]),
        (&json!(1), &json!("Recreate"))
    );
    assert!(manifests.all("PodDisruptionBudget").is_empty(), "it would block node drains");
    let mount_of = |container: &Value, path: &str| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["mountPath"] == path).cloned()
    };
    let ours = environment(manifests.gateway());
    let folder = &ours["SESSION_FILE_DIR"];
    assert_eq!(folder, &environment(manifests.simplechat())["SESSION_FILE_DIR"]);
    let mount = mount_of(manifests.gateway(), folder).unwrap();
    assert_eq!(mount_of(manifests.simplechat(), folder).unwrap(), mount);
    let notes = &ours["GATEWAY_STATE_DIR"];
    assert!(mount_of(manifests.gateway(), notes).is_some());
    assert!(mount_of(manifests.simplechat(), notes).is_none(), "only the gateway mounts its state");
    let volumes = manifests.pod()["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    assert_eq!(volume["persistentVolumeClaim"]["claimName"], "simplechat-sessions");
    assert_eq!(
        manifests.pod()["securityContext"]["runAsUser"],
        65532,
        "both containers run as the same user"
    );
}

#[test]
fn the_database_is_a_volume_of_the_gateway_or_a_reachable_server() {
    if !helm_is_available() {
        return;
    }
    let file = Manifests::render("sidecar-files", &[]);
    let url = &environment(file.gateway())["DATABASE_URL"];
    let (folder, _) = url.strip_prefix("sqlite:").unwrap().rsplit_once('/').unwrap();
    let mount_of = |container: &Value| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["mountPath"] == folder).cloned()
    };
    let mount = mount_of(file.gateway()).unwrap();
    assert!(mount_of(file.simplechat()).is_none(), "only the gateway mounts the activity log");
    let volumes = file.pod()["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    assert!(
        volume["persistentVolumeClaim"]["claimName"].is_string(),
        "the volume outlives the pod"
    );
    assert_eq!(file.the("Deployment")["spec"]["strategy"]["type"], "Recreate");
    // SQLite needs `Recreate` also where sessions do not limit the Deployment to one pod.
    let one = ["replicas=1", "database.kind=sqlite", "database.sqlite.existingClaim=a"];
    let alone = Manifests::render("sidecar", &["--set", &one.join(",")]);
    assert_eq!(alone.the("Deployment")["spec"]["strategy"]["type"], "Recreate");

    let server = Manifests::render("front-managed", &["--set", "database.postgres.port=6432"]);
    let ours = environment(server.gateway());
    assert_eq!(ours["GATEWAY_EXTERNAL_ACCESS"], "managed");
    assert!(!ours.contains_key("DATABASE_URL") && ours.contains_key("DATABASE_URL_FILE"));
    let policy =
        server.0[&("NetworkPolicy".to_owned(), "rel-simplechat-gateway".to_owned())].clone();
    let rules = policy["spec"]["egress"].as_array().unwrap();
    let to_server: Vec<_> = rules.iter().filter(|rule| rule["ports"][0]["port"] == 6432).collect();
    let [rule] = to_server[..] else { panic!("{policy}") };
    assert_eq!(rule["to"], json!([{"ipBlock": {"cidr": "10.1.2.0/28"}}]));
    let without = Manifests::render("front", &[]);
    assert!(!format!("{:?}", without.0).contains("5432"));
}

/// Rules of the gateway's own network policy that admit any address. An empty or missing list of
/// peers does so (`NetworkPolicySpec`: `to`, `from`).
fn rules_for_any_address(manifests: &Manifests) -> Vec<&Value> {
    let name = ("NetworkPolicy".to_owned(), "rel-simplechat-gateway".to_owned());
    let spec = &manifests.0[&name]["spec"];
    let rules = [("ingress", "from"), ("egress", "to")].into_iter().flat_map(|(rules, peers)| {
        let rules = spec[rules].as_array().unwrap().iter();
        rules.filter(move |rule| rule[peers].as_array().is_none_or(Vec::is_empty))
    });
    rules.collect()
}

// Redis and PostgreSQL were reachable at any address while networkPolicy.redis and .postgres were
// empty, contrary to docs/hardening.md. Empty lists are refused: `bad_values_are_refused`.
#[test]
fn every_rule_of_the_network_policy_names_its_peers() {
    if !helm_is_available() {
        return;
    }
    let guarded_elsewhere = [
        "upstream.podSelector=null",
        "upstream.guardedElsewhere=true",
        "networkPolicy.upstream[0].ipBlock.cidr=10.1.3.0/28",
    ];
    let guarded_elsewhere = guarded_elsewhere.join(",");
    for name in EXAMPLES {
        for more in ["networkPolicy.dns=null", &guarded_elsewhere] {
            let manifests = Manifests::render(name, &["--set", more]);
            assert_eq!(rules_for_any_address(&manifests), [""; 0], "{name} {more}");
        }
        let manifests = Manifests::render(name, &[]);
        let text = format!("{:?}", manifests.0);
        let goes_to_redis = text.contains("6380");
        assert_eq!(goes_to_redis, text.contains("10.1.2.4/32"), "{name}: {text}");
    }
    let elsewhere = Manifests::render("front", &["--set", &guarded_elsewhere]);
    assert_eq!(elsewhere.all("NetworkPolicy").len(), 1);
    assert!(elsewhere.the("NetworkPolicy").to_string().contains("10.1.3.0/28"));
    // Negative control.
    let open = ["--set", "networkPolicy.extraEgress[0].ports[0].port=1"];
    assert_eq!(rules_for_any_address(&Manifests::render("front", &open)).len(), 1);
}

// `scratch` had no limit, so that an upload could fill the node's disk.
#[test]
fn every_empty_dir_volume_has_a_size_limit() {
    if !helm_is_available() {
        return;
    }
    let mut count = 0;
    for name in EXAMPLES {
        let manifests = Manifests::render(name, &["--set", "simplechat.scratchSize=3Gi"]);
        for volume in manifests.pod()["volumes"].as_array().unwrap() {
            let folder = &volume["emptyDir"];
            if folder.is_object() {
                count += 1;
                assert!(folder["sizeLimit"].is_string(), "{name}: {volume}");
            }
            if volume["name"] == "scratch" {
                assert_eq!(folder["sizeLimit"], "3Gi", "{name}");
            }
        }
    }
    assert!(count >= 3, "{count}");
}

#[test]
fn azure_workload_identity_is_set_on_the_service_account_and_the_pod() {
    if !helm_is_available() {
        return;
    }
    let front = Manifests::render("front", &[]);
    let account = &front.the("ServiceAccount")["metadata"];
    assert!(account["annotations"]["azure.workload.identity/client-id"].is_string());
    let labels = &front.the("Deployment")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["azure.workload.identity/use"], "true");
    assert_eq!(front.pod()["serviceAccountName"], account["name"]);
    let without = Manifests::render("sidecar", &[]);
    assert!(!format!("{:?}", without.0).contains("azure.workload.identity"));
}

fn schema() -> Value {
    let text = std::fs::read_to_string(in_repository(CHART).join("values.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn secrets_are_referenced_and_never_embedded() {
    if !helm_is_available() {
        return;
    }
    let schema = schema();
    let secrets = names(&schema["properties"]["secrets"]["properties"]);
    assert!(secrets.contains("REDIS_PASSWORD") && secrets.contains("SECRET_KEY"));
    for name in EXAMPLES {
        let manifests = Manifests::render(name, &[]);
        assert!(manifests.all("Secret").is_empty());
        let environment = environment(manifests.gateway());
        for secret in &secrets {
            let is_url = ["REDIS_URL", "DATABASE_URL"].contains(secret)
                && !environment.get(*secret).is_some_and(|url| url.contains('@'));
            assert!(is_url || !environment.contains_key(*secret), "{name}: {secret}");
            let Some(path) = environment.get(&format!("{secret}_FILE")) else { continue };
            let (folder, file) = path.rsplit_once('/').unwrap();
            let mount = &manifests.gateway()["volumeMounts"][0];
            assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&json!(folder), &json!(true)));
            let sources = manifests.pod()["volumes"][0]["projected"]["sources"].to_string();
            assert!(sources.contains(&format!("\"path\":\"{file}\"")), "{sources}");
        }
    }
}

#[test]
fn bad_values_are_refused() {
    if !helm_is_available() {
        return;
    }
    let by_schema = [
        "nonsense=1",
        "mode=both",
        "image.nonsense=1",
        "tenantId=contoso",
        "publicUrls[0]=chat.example",
        "publicUrls[0]=https://chat.example/path",
        "settings.GATEWAY_LISTEM=1",
        "settings.GATEWAY_LISTEN=0.0.0.0:1",
        "settings.REDIS_PASSWORD=hunter2",
        "secrets.REDIS_PASSWORD=hunter2",
        "secrets.REDIS_PASSWORD.value=hunter2",
        "secrets.REDIS_PASSWORD.key=a/b",
        "secrets.TENANT_ID.key=a",
        "sessions.redis.url=rediss://:hunter2@cache.example",
        "upstream.url=http://me:hunter2@simplechat",
        "sessions.store=memcached",
        "database.kind=mysql",
        "settings.DATABASE_URL=postgres://h/d",
        "drain.marginSeconds=0",
        "replicas=two",
        "simplechat.scratchSize=much",
        "image.digest=sha256:1",
    ];
    // Example, values, expected message.
    let by_us = [
        ("front", "mode=", "mode: is required"),
        ("front", "image.repository=", "image.repository: is required"),
        ("front", "tenantId=", "tenantId: is required"),
        ("front", "publicUrls=null", "publicUrls: is required"),
        ("front", "externalAccess.acceptedBy=", "externalAccess.acceptedBy: is required"),
        ("front", "upstream.url=", "upstream.url: is required"),
        ("front", "upstream.podSelector=null", "upstream.podSelector: is required"),
        ("front", "sessions.store=filesystem", "filesystem needs mode sidecar"),
        ("front", "sessions.redis.url=", "sessions.redis.url: is required"),
        ("front", "networkPolicy.callers=null", "networkPolicy.callers: is required"),
        ("front", "networkPolicy.scrapers=null", "networkPolicy.scrapers: is required"),
        ("front", "networkPolicy.enabled=false", "networkPolicy.scrapers: is required"),
        ("front", "networkPolicy.enabled=false", "upstream.podSelector: does nothing"),
        ("front", "networkPolicy.redis=null", "networkPolicy.redis: is required"),
        ("sidecar", "networkPolicy.redis=null", "[{ipBlock: {cidr: 10.1.2.4/32}}]"),
        ("front-managed", "networkPolicy.postgres=null", "networkPolicy.postgres: is required"),
        (
            "front",
            "upstream.podSelector=null,upstream.guardedElsewhere=true",
            "networkPolicy.upstream: is required",
        ),
        ("front", "workloadIdentity.clientId=", "workloadIdentity.clientId: is required"),
        ("front", "ingress.hosts[0]=other.example", "is not among publicUrls"),
        ("front", "ingress.tlsSecretName=", "ingress.tlsSecretName: is required"),
        ("front", "extraEnv[0].name=GATEWAY_LISTEN", "GATEWAY_LISTEN is set already"),
        (
            "front",
            "extraEnv[0].name=SECRET_KEY,extraEnv[0].value=hunter2",
            "SECRET_KEY holds a secret",
        ),
        ("front", "extraEnv[0].name=X,extraEnv[0].value=redis://:hunter2@h", "X holds a secret"),
        ("front", "externalAccess.managed=true", "externalAccess.managed: externalAccess.enabled"),
        ("front", "database.kind=postgres", "secrets.DATABASE_URL: is required"),
        ("front", "database.kind=sqlite", "SQLite's file is for one pod"),
        ("front", "database.kind=sqlite", "database.sqlite.existingClaim: is required"),
        ("front-managed", "database.kind=none", "database.kind: is required"),
        ("front-managed", "database.kind=none", "secrets.DATABASE_URL: does nothing"),
        ("sidecar-files", "replicas=2", "SQLite's file is for one pod"),
        ("sidecar", "simplechat.image.repository=", "simplechat.image.repository: is required"),
        ("sidecar", "simplechat.image.digest=", "names neither tag nor digest"),
        ("sidecar", "simplechat.env[0].name=GUNICORN_BIND", "GUNICORN_BIND is set already"),
        ("sidecar", "secrets.REDIS_URL.existingSecret=a,secrets.REDIS_URL.key=b", "set one"),
        ("sidecar-files", "replicas=2", "filesystem sessions live in one pod"),
        ("sidecar-files", "autoscaling.enabled=true", "filesystem sessions live in one pod"),
    ];
    for which in HELMS {
        for bad in by_schema {
            let output = try_template(which, "front", &["--set", bad]);
            let text = output_text(&output);
            assert!(!output.status.success(), "{which} {bad}");
            assert!(text.contains("schema"), "{which} {bad}: {text}");
        }
        for (name, bad, expected) in by_us {
            let output = try_template(which, name, &["--set", bad]);
            let text = output_text(&output);
            assert!(!output.status.success() && text.contains(expected), "{which} {bad}: {text}");
            assert!(!text.contains("hunter2"), "{which} {bad}: {text}");
        }
        // All problems at once.
        let output = helm(which, &["template", "rel", CHART]);
        assert!(
            !output.status.success() && output_text(&output).contains("8 problems with the values")
        );
    }
    println!("{} values refused, by two Helms", by_schema.len() + by_us.len());
}

/// Visits every schema below a schema, with its path.
fn walk<'a>(path: &str, schema: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(path, schema);
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), below, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
}

#[test]
fn the_schema_describes_every_value() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    let mut count = 0;
    let mut check = |path: &str, it: &Value| {
        count += 1;
        let is_described = it["description"].as_str().is_some_and(|text| text.len() > 2);
        assert!(is_described || it.get("$ref").is_some(), "{path} has no description");
        assert!(
            it["properties"].is_null() || it["additionalProperties"] == false,
            "{path} is open"
        );
    };
    walk("", &schema, &mut check);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        walk(name, definition, &mut check);
    }
    assert!(count > 150, "{count}");
    if !helm_is_available() {
        return;
    }
    // values.yaml shows every value of the schema with its default; Helm refuses unknown ones.
    let values = documents(&in_repository(CHART).join("values.yaml"));
    walk("", &schema, &mut |path, _| {
        let is_open = path.contains("[]")
            || [".settings.", ".secrets.", ".global"].iter().any(|open| path.starts_with(open));
        let pointer = path.replace('.', "/");
        assert!(is_open || values[0].pointer(&pointer).is_some(), "{path} is not in values.yaml");
    });
}

#[tokio::test]
async fn the_schema_has_exactly_the_settings_of_the_program() {
    let copy = tempfile::tempdir().unwrap();
    let below = copy.path().join("simplechat-gateway");
    std::fs::create_dir(&below).unwrap();
    let committed = in_repository(CHART).join("values.schema.json");
    std::fs::copy(&committed, below.join("values.schema.json")).unwrap();
    let script = copy.path().join("settings.py");
    std::fs::copy(in_repository("charts/settings.py"), &script).unwrap();
    let mut command = Command::new(crate::world::flask::python());
    let output = command.arg(&script).arg(crate::world::gateway::binary()).output().unwrap();
    assert!(output.status.success(), "{}", output_text(&output));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert!(read(&below.join("values.schema.json")) == read(&committed), "run `make docs`");

    // Each setting can be given as a setting, as a secret or by the chart.
    let schema = schema();
    let properties = &schema["properties"];
    let mut known = names(&properties["settings"]["properties"]);
    known.extend(names(&properties["secrets"]["properties"]));
    let page = read(&in_repository("docs/reference/settings.md"));
    let table = page.split("<!-- settings -->").nth(1).unwrap();
    let table = table.split("<!-- end of settings -->").next().unwrap();
    let templates = read(&in_repository(CHART).join("templates/_env.tpl"));
    let all: Vec<_> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(all.len() > 50);
    for name in all {
        let is_set_by_the_chart = templates.contains(&format!("name: {name},"));
        // The chart mounts no configuration file.
        let is_unsupported = name == "GATEWAY_CONFIG";
        // REDIS_URL and DATABASE_URL may be a setting or a secret.
        assert!(known.contains(name) || is_set_by_the_chart || is_unsupported, "{name}");
        assert!(
            !(is_set_by_the_chart && names(&properties["settings"]["properties"]).contains(name)),
            "{name}"
        );
    }
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart = std::fs::read_to_string(in_repository(CHART).join("Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for line in [format!("\nversion: {version}\n"), format!("\nappVersion: {version}\n")] {
        assert!(chart.contains(&line), "{line}");
    }
}

#[test]
fn values_named_in_the_documentation_exist_in_the_schema() {
    let schema = schema();
    let mut known = BTreeSet::new();
    walk("", &schema, &mut |path, _| {
        known.insert(path.trim_start_matches('.').to_owned());
    });
    let mut count = 0;
    for page in ["docs/deploy/kubernetes.md", "charts/simplechat-gateway/README.md"] {
        let text = std::fs::read_to_string(in_repository(page)).unwrap();
        for span in text.split("```").step_by(2).flat_map(|part| part.split('`').skip(1).step_by(2))
        {
            let name = span.split([':', '=']).next().unwrap();
            let first = name.split('.').next().unwrap();
            if known.contains(first) && name.contains('.') {
                count += 1;
                assert!(known.contains(name), "{page}: {span}");
            }
        }
    }
    assert!(count > 10, "the pages are read: {count}");
}
