//! The Kubernetes manifests in `examples/deploy/kubernetes` against the published types of the
//! Kubernetes API, and against each other. No cluster is needed. Which values and combinations of
//! fields are allowed is known to an API server only, and checked here where a mistake is easy.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Secret, Service};
use phalanx::{Config, ConfigError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::fs;
use std::path::Path;

const KUEUE: &str = "kueue.x-k8s.io/v1beta2";

/// Fields whose published type is a mere string.
const CHOICES: &[(&str, &[&str])] = &[
    ("completionMode", &["Indexed", "NonIndexed"]),
    ("podReplacementPolicy", &["Failed", "TerminatingOrFailed"]),
    ("restartPolicy", &["Never", "OnFailure"]),
    ("action", &["Ignore", "Count", "FailJob", "FailIndex"]),
    ("effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"]),
    ("operator", &["Exists", "Equal"]),
    ("fieldPath", &["metadata.name", "metadata.namespace", "status.podIP", "spec.nodeName"]),
];

/// What every pod must say, and where.
const HARDENED: &[(&str, &str)] = &[
    ("/enableServiceLinks", "false"),
    ("/automountServiceAccountToken", "false"),
    ("/securityContext/runAsNonRoot", "true"),
    ("/securityContext/seccompProfile/type", "\"RuntimeDefault\""),
    ("/containers/0/securityContext/allowPrivilegeEscalation", "false"),
    ("/containers/0/securityContext/readOnlyRootFilesystem", "true"),
    ("/containers/0/securityContext/capabilities/drop", "[\"ALL\"]"),
];

/// One document of a file.
struct Manifest {
    file: String,
    value: Value,
}

impl Manifest {
    /// What stands at this pointer; null if nothing does.
    fn at(&self, pointer: &str) -> &Value {
        self.value.pointer(pointer).unwrap_or(&Value::Null)
    }

    fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    fn name(&self) -> String {
        format!("{}: {} {}", self.file, self.text("/kind"), self.text("/metadata/name"))
    }

    /// What the published type keeps of it.
    fn as_published(&self) -> Result<Value, String> {
        match (self.text("/apiVersion"), self.text("/kind")) {
            ("v1", "Secret") => there_and_back::<Secret>(&self.value),
            ("v1", "Service") => there_and_back::<Service>(&self.value),
            ("batch/v1", "Job") => there_and_back::<Job>(&self.value),
            // Kueue publishes no Rust types: only the head is looked at, and the names.
            (KUEUE, "ResourceFlavor" | "ClusterQueue" | "LocalQueue") => {
                match self.text("/metadata/name") {
                    "" => Err("metadata.name is missing".to_owned()),
                    _ => Ok(self.value.clone()),
                }
            }
            (version, kind) => Err(format!("{version} {kind} is not known here")),
        }
    }

    fn container(&self, pointer: &str) -> &Value {
        self.value["spec"]["template"]["spec"]["containers"][0]
            .pointer(pointer)
            .unwrap_or(&Value::Null)
    }

    fn variables(&self) -> &[Value] {
        self.container("/env").as_array().map_or(&[], Vec::as_slice)
    }

    fn variable(&self, name: &str) -> &str {
        let found = self.variables().iter().find(|variable| variable["name"] == name);
        found.and_then(|variable| variable["value"].as_str()).unwrap_or_default()
    }

    /// What follows this argument of the program.
    fn argument(&self, option: &str) -> &str {
        let arguments = self.container("/args").as_array().map_or(&[][..], Vec::as_slice);
        let at = arguments.iter().position(|argument| argument == option);
        at.and_then(|at| arguments.get(at + 1)?.as_str()).unwrap_or_default()
    }
}

fn there_and_back<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// Where the two differ: the types drop what they do not know, and fill in what they need. They
/// keep quantities and int-or-strings as they are written, so that nothing else differs. A quantity
/// must be a string for them ("1", not 1), which is stricter than the API.
fn differences(path: &str, written: &Value, kept: &Value, found: &mut Vec<String>) {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => {
            for (key, value) in written {
                match kept.get(key) {
                    Some(kept) => differences(&format!("{path}.{key}"), value, kept, found),
                    None => found.push(format!("{path}.{key} is not a field")),
                }
            }
            let missing = kept.keys().filter(|key| !written.contains_key(*key));
            found.extend(missing.map(|key| format!("{path}.{key} is missing")));
        }
        (Value::Array(written), Value::Array(kept)) if written.len() == kept.len() => {
            for (index, (written, kept)) in written.iter().zip(kept).enumerate() {
                differences(&format!("{path}[{index}]"), written, kept, found);
            }
        }
        (written, kept) if written == kept => {
            if is_wrong_choice(path, written) {
                found.push(format!("{path} cannot be {written}"));
            }
        }
        (written, kept) => found.push(format!("{path} is {written}, understood as {kept}")),
    }
}

/// Whether the field at the end of this path may not have this value.
fn is_wrong_choice(path: &str, value: &Value) -> bool {
    let field = path.rsplit('.').next();
    let choice = CHOICES.iter().find(|(name, _)| Some(*name) == field);
    choice.is_some_and(|(_, allowed)| !allowed.iter().any(|it| value == it))
}

/// Collects complaints.
#[derive(Default)]
struct Check(Vec<String>);

impl Check {
    fn that(&mut self, holds: bool, complaint: impl Into<String>) {
        if !holds {
            self.0.push(complaint.into());
        }
    }
}

fn read() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deploy/kubernetes");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn parse(files: &[(String, String)], check: &mut Check) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    for (file, text) in files {
        for document in yaml_serde::Deserializer::from_str(text) {
            // By way of YAML's own value, which refuses a key that stands twice.
            match yaml_serde::Value::deserialize(document).map(serde_json::to_value) {
                Ok(Ok(value)) => manifests.push(Manifest { file: file.clone(), value }),
                Ok(Err(error)) => check.that(false, format!("{file}: {error}")),
                Err(error) => check.that(false, format!("{file}: {error}")),
            }
        }
    }
    manifests
}

/// Everything that is wrong with these files.
fn complaints(files: &[(String, String)]) -> Vec<String> {
    let mut check = Check::default();
    let manifests = parse(files, &mut check);
    for manifest in &manifests {
        let name = manifest.name();
        match manifest.as_published() {
            Ok(kept) => {
                let mut found = Vec::new();
                differences("", &manifest.value, &kept, &mut found);
                check.0.extend(found.iter().map(|wrong| format!("{name}: {wrong}")));
            }
            Err(error) => check.that(false, format!("{name}: {error}")),
        }
    }
    let nothing = Manifest { file: String::new(), value: Value::Null };
    let mut find = |kind: &str, name: &str| {
        let is_it = |it: &&Manifest| it.text("/kind") == kind && it.name().ends_with(name);
        let found = manifests.iter().find(is_it);
        check.that(found.is_some(), format!("there is no {kind}{name}"));
        found.unwrap_or(&nothing)
    };
    let (secret, service) = (find("Secret", ""), find("Service", ""));
    let (driver, executors) = (find("Job", " phalanx-driver"), find("Job", " phalanx-executors"));
    let (queue, cluster) = (find("LocalQueue", ""), find("ClusterQueue", ""));
    let known_flavor = find("ResourceFlavor", "").at("/metadata/name");
    check_pod(driver, secret, &mut check);
    check_pod(executors, secret, &mut check);
    check_link(service, driver, executors, &mut check);
    check_gang(driver, executors, &mut check);
    check_queue(queue, cluster, executors, &mut check);
    let flavor = cluster.at("/spec/resourceGroups/0/flavors/0/name");
    check.that(flavor == known_flavor, format!("there is no flavor {flavor}"));
    check.0
}

fn check_pod(job: &Manifest, secret: &Manifest, check: &mut Check) {
    let name = job.name();
    let pod = job.at("/spec/template/spec");
    for (pointer, expected) in HARDENED {
        let found = pod.pointer(pointer).unwrap_or(&Value::Null).to_string();
        check.that(found == *expected, format!("{name}: {pointer} is {found}, not {expected}"));
    }
    for resource in ["/resources/requests/cpu", "/resources/requests/memory"] {
        check.that(job.container(resource).is_string(), format!("{name}: {resource} is missing"));
    }
    for variable in job.variables() {
        let variable_name = variable["name"].as_str().unwrap_or_default();
        let value = variable["value"].as_str();
        if let Err(error) = known_variable(variable_name, value.unwrap_or("1")) {
            check.that(false, format!("{name}: {error}"));
        }
        let reference = &variable["valueFrom"]["secretKeyRef"];
        let of_secret = reference["name"] == *secret.at("/metadata/name");
        let key = reference["key"].as_str().unwrap_or_default();
        let is_there = of_secret && secret.at("/stringData").get(key).is_some();
        check.that(reference.is_null() || is_there, format!("{name}: no secret has {reference}"));
    }
    let has_token = job.variables().iter().any(|it| it["name"] == "PHALANX_TOKEN");
    check.that(has_token, format!("{name}: has no token"));
    // So that nobody runs with the placeholder: `Token::new` refuses less than 16 bytes.
    let placeholder = secret.text("/stringData/token");
    check.that(placeholder.len() < 16, "the token in the secret would be accepted");
}

fn known_variable(name: &str, value: &str) -> Result<(), ConfigError> {
    Config::default().apply_variables([(name.to_owned(), value.to_owned())])
}

fn check_link(service: &Manifest, driver: &Manifest, executors: &Manifest, check: &mut Check) {
    let selects = |job: &Manifest| {
        let selector = service.at("/spec/selector").as_object();
        let labels = job.at("/spec/template/metadata/labels");
        selector.is_some_and(|all| all.iter().all(|(key, value)| labels[key.as_str()] == *value))
    };
    check.that(selects(driver), "the service does not select the driver");
    check.that(!selects(executors), "the service selects the executors");
    check.that(service.text("/spec/clusterIP") == "None", "the service is not headless");
    let port = service.at("/spec/ports/0/port");
    let opened = driver.container("/ports/0");
    check.that(opened["containerPort"] == *port, "service and driver differ in the port");
    let by_name = opened["name"] == *service.at("/spec/ports/0/targetPort");
    check.that(by_name, "the service's targetPort is no port of the driver");
    let listen = format!("listen:0.0.0.0:{port}");
    check.that(driver.argument("--cluster") == listen, format!("the driver does not {listen}"));
    let address = format!("{}:{port}", service.text("/metadata/name"));
    let dialled = executors.variable("PHALANX_DRIVER");
    check.that(dialled == address, format!("executors dial {dialled}, the driver is {address}"));
    let role = executors.variable("PHALANX_ROLE");
    check.that(role == "executor", "the executors are none");
}

fn check_gang(driver: &Manifest, executors: &Manifest, check: &mut Check) {
    let number = |pointer| executors.at(pointer).as_u64();
    let (completions, parallelism) = (number("/spec/completions"), number("/spec/parallelism"));
    check.that(completions.is_some(), "the executors have no completions");
    check.that(completions == parallelism, "completions and parallelism differ");
    check.that(executors.text("/spec/completionMode") == "Indexed", "executors have no index");
    check.that(number("/spec/backoffLimitPerIndex").is_some(), "dead executors stay dead");
    let restart = executors.text("/spec/template/spec/restartPolicy");
    check.that(restart == "Never", "backoffLimitPerIndex needs restartPolicy Never");
    let slots: Option<u64> = executors.variable("PHALANX_SLOTS").parse().ok();
    let slots = slots.zip(completions).map_or(0, |(each, executors)| each * executors);
    let tasks = driver.argument("--tasks").parse::<u64>().ok();
    let fits = tasks.is_some_and(|tasks| tasks <= slots);
    check.that(fits, format!("{tasks:?} tasks do not fit into {slots} slots"));
    let images = [driver, executors].map(|job| job.container("/image"));
    check.that(images[0] == images[1], "driver and executors are different programs");
}

fn check_queue(queue: &Manifest, cluster: &Manifest, executors: &Manifest, check: &mut Check) {
    let label = executors.at("/metadata/labels").get("kueue.x-k8s.io/queue-name");
    let known = label == Some(queue.at("/metadata/name"));
    check.that(known, "the executors' queue-name is no LocalQueue");
    let suspended = executors.at("/spec/suspend") == &Value::Bool(true);
    check.that(suspended, "the executors would start before they are admitted");
    let known = queue.at("/spec/clusterQueue") == cluster.at("/metadata/name");
    check.that(known, "the LocalQueue's clusterQueue does not exist");
    let quotas = cluster.at("/spec/resourceGroups/0/flavors/0/resources");
    for quota in quotas.as_array().map_or(&[][..], Vec::as_slice) {
        let resource = quota["name"].as_str().unwrap_or_default();
        let each = amount(executors.container(&format!("/resources/requests/{resource}")));
        let all = each.zip(executors.at("/spec/parallelism").as_u64()).map(|(a, b)| a * b);
        let fits = all.zip(amount(&quota["nominalQuota"])).is_some_and(|(all, it)| all <= it);
        check.that(fits, format!("the gang can never be admitted: {resource}"));
    }
    let covered = cluster.at("/spec/resourceGroups/0/coveredResources");
    let names: Vec<_> = quotas.as_array().into_iter().flatten().map(|it| &it["name"]).collect();
    let same = covered.as_array().is_some_and(|covered| covered.iter().eq(names));
    check.that(same, "coveredResources and the flavor's resources differ");
}

/// A quantity in thousandths, of the few forms that stand in these manifests.
fn amount(quantity: &Value) -> Option<u64> {
    let text = quantity.to_string();
    let text = text.trim_matches('"');
    let (digits, unit) = text.split_at(text.find(char::is_alphabetic).unwrap_or(text.len()));
    let unit = match unit {
        "m" => 1,
        "" => 1000,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()? * unit)
}

#[test]
fn the_manifests_fit_the_published_types_and_each_other() {
    let found = complaints(&read());
    assert!(found.is_empty(), "{found:#?}");
}

/// A text in the manifests, what a mistake makes of it, and the complaint.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("backoffLimitPerIndex:", "backoffLimitPerIndx:", ".spec.backoffLimitPerIndx is not a field"),
    (
        "readOnlyRootFilesystem:",
        "readOnlyRootFileSystem:",
        "training.yaml: Job phalanx-driver: .spec.template.spec.containers[0].securityContext\
         .readOnlyRootFileSystem is not a field",
    ),
    ("                  key: token\n", "", "env[0].valueFrom.secretKeyRef.key is missing"),
    ("parallelism: 4", "parallelism: four", "invalid type: string \"four\", expected i32"),
    ("kind: Service", "kind: Servise", "v1 Servise is not known here"),
    ("suspend: true", "suspend: true\n  suspend: true", "duplicate"),
    ("restartPolicy: Never", "restartPolicy: never", "restartPolicy cannot be \"never\""),
    ("runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot is false, not true"),
    ("completions: 4", "completions: 5", "completions and parallelism differ"),
    ("\"--tasks\", \"4\"", "\"--tasks\", \"5\"", "Some(5) tasks do not fit into 4 slots"),
    ("value: \"1\"", "value: \"1\"\n              vale: \"2\"", "env[3].vale is not a field"),
    ("PHALANX_EXECUTOR_NAME", "PHALANX_EXECUTER_NAME", "no setting PHALANX_EXECUTER_NAME"),
    ("value: \"5760\"", "value: many", "= \"many\" is not allowed"),
    ("component: driver\n  ports", "component: drivers\n  ports", "does not select the driver"),
    ("component: driver\n  ports", "component: executor\n  ports", "selects the executors"),
    ("port: 7077", "port: 7078", "service and driver differ in the port"),
    ("listen:0.0.0.0:7077", "listen:0.0.0.0:7070", "the driver does not listen:0.0.0.0:7077"),
    ("targetPort: link", "targetPort: chain", "targetPort is no port of the driver"),
    ("phalanx-driver:7077", "driver:7077", "executors dial driver:7077"),
    ("  token: replace-me", "  tokens: replace-me", "no secret has {\"key\":\"token\""),
    ("replace-me", "replace-me-with-a-token", "the token in the secret would be accepted"),
    ("queue-name: training", "queue-name: trainings", "queue-name is no LocalQueue"),
    ("clusterQueue: training", "clusterQueue: others", "clusterQueue does not exist"),
    ("        - name: default-flavor", "        - name: gpu", "there is no flavor \"gpu\""),
    ("nominalQuota: 4Gi", "nominalQuota: 1023Mi", "the gang can never be admitted: memory"),
];

#[test]
fn a_mistake_in_a_copy_of_the_manifests_is_found() {
    for (text, mistake, expected) in MISTAKES {
        let mut files = read();
        assert!(files.iter().any(|(_, content)| content.contains(text)), "{text} is not there");
        files.iter_mut().for_each(|(_, content)| *content = content.replace(text, mistake));
        let found = complaints(&files);
        let named = found.iter().any(|complaint| complaint.contains(expected));
        assert!(named, "{mistake}: {found:#?} does not say: {expected}");
    }
}
