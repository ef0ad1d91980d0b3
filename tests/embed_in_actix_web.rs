//! Runs the example's binary and speaks to it as its users do.
#![cfg(unix)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing here takes nearly as long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(30);
const ENDLESS: u64 = 1_000_000;

struct Server {
    child: Child,
    url: String,
    agent: ureq::Agent,
    /// All of stderr, once the process has ended.
    errors: Receiver<String>,
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: Value,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let errors = in_background(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_global(Some(DEADLINE)).build().into();
        // From here on the guard ends the process.
        let mut server = Server { child, url: String::new(), agent, errors };
        let first_line = in_background(move || stdout.lines().next().unwrap().unwrap());
        let line = first_line.recv_timeout(DEADLINE).expect("the service prints its address");
        server.url = format!("http://{}", line.strip_prefix("listening on ").unwrap());
        server
    }

    fn post(&self, job: &Value) -> Answer {
        answer(self.agent.post(format!("{}/jobs", self.url)).send_json(job))
    }

    fn post_text(&self, content_type: &str, text: &str) -> Answer {
        let request = self.agent.post(format!("{}/jobs", self.url));
        answer(request.content_type(content_type).send(text))
    }

    fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(format!("{}{path}", self.url)).call())
    }

    fn delete(&self, path: &str) -> Answer {
        answer(self.agent.delete(format!("{}{path}", self.url)).call())
    }

    /// Posts a job that must be taken; gives its path.
    fn job(&self, job: &Value) -> String {
        let Answer { status, location, body } = self.post(job);
        assert_eq!(status, 201, "{body}");
        let location = location.unwrap();
        assert_eq!(location, format!("/jobs/{}", body["id"]));
        location
    }

    /// Looks at a job until it is as wanted.
    fn wait_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let Answer { status, body, .. } = self.get(path);
            assert_eq!(status, 200, "{body}");
            if wanted(&body) {
                return body;
            }
            assert!(Instant::now() < end, "{path} did not become as wanted: {body}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for_state(&self, path: &str, state: &str) -> Value {
        self.wait_until(path, |job| job["state"] == state)
    }

    /// Tells the process to end; gives how it did, what it said and how long it took.
    fn terminate(mut self) -> (ExitStatus, String, Duration) {
        let began = Instant::now();
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let errors = self.errors.recv_timeout(DEADLINE).expect("the service ends");
        (self.child.wait().unwrap(), errors, began.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let binary = profile.join("examples").join("embed_in_actix_web");
    assert!(binary.exists(), "first: cargo build --example embed_in_actix_web");
    binary
}

fn in_background(work: impl FnOnce() -> String + Send + 'static) -> Receiver<String> {
    let (tell, told) = mpsc::channel();
    // Whoever waits may have given up.
    thread::spawn(move || drop(tell.send(work())));
    told
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap();
    let location = response.headers().get("location");
    let location = location.map(|location| location.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    Answer { status, location, body: response.body_mut().read_json().unwrap() }
}

fn training(name: &str, tasks: u32, epochs: u64, epoch_ms: u64) -> Value {
    json!({ "name": name, "tasks": tasks, "epochs": epochs, "epoch_ms": epoch_ms })
}

fn stuck(name: &str, tasks: u32) -> Value {
    json!({ "name": name, "tasks": tasks, "stuck": true })
}

/// Epochs done by all tasks together.
fn epochs_done(job: &Value) -> u64 {
    let tasks = job["progress"].as_array().unwrap();
    tasks.iter().map(|task| task["done"].as_u64().unwrap_or(0)).sum()
}

fn assert_error(answer: &Answer, status: u16, parts: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.body);
    let error = answer.body["error"].as_str().unwrap();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn a_job_trains_a_model_and_the_same_job_the_same_model() {
    let server = Server::start(&["--slots", "4"]);
    let models = [0, 1].map(|_| {
        let path = server.job(&training("fit", 4, 60, 0));
        let job = server.wait_for_state(&path, "succeeded");
        assert_eq!(job["name"], "fit");
        assert_eq!(epochs_done(&job), 4 * 60, "{job}");
        assert!(job["error"].is_null(), "{job}");
        job["result"].clone()
    });
    assert!(models[0]["loss"].as_f64().unwrap() < 0.001, "{}", models[0]);
    for (weight, expected) in models[0]["weights"].as_array().unwrap().iter().zip([1.0, -2.0]) {
        assert!((weight.as_f64().unwrap() - expected).abs() < 0.01, "{}", models[0]);
    }
    assert_eq!(models[0], models[1]);

    let list = server.get("/jobs").body;
    let states: Vec<_> = list.as_array().unwrap().iter().map(|job| &job["state"]).collect();
    assert_eq!(states, ["succeeded", "succeeded"], "{list}");
}

#[test]
fn a_running_job_shows_progress_that_grows() {
    let server = Server::start(&["--slots", "2"]);
    let path = server.job(&training("watched", 2, ENDLESS, 1));
    let job = server.wait_until(&path, |job| epochs_done(job) > 0);
    assert_eq!(job["state"], "running");
    assert_eq!(job["attempt"], 0);
    let tasks = job["progress"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    assert_eq!(tasks[0]["total"], ENDLESS);
    let before = epochs_done(&job);
    let job = server.wait_until(&path, |job| epochs_done(job) > before + 10);
    assert_eq!(job["state"], "running");
    assert!(job["result"].is_null(), "{job}");
}

#[test]
fn a_job_larger_than_the_machine_is_deferred_until_it_is_cancelled() {
    let server = Server::start(&["--slots", "2"]);
    let path = server.job(&training("giant", 3, 1, 0));
    let job = server.wait_for_state(&path, "deferred");
    assert_eq!(job["waiting_for"]["required"], 3, "{job}");
    assert_eq!(job["waiting_for"]["available"], 2, "{job}");
    assert!(job["waiting_for"]["checks_left"].as_u64().unwrap() > 0, "{job}");

    assert_eq!(server.delete(&format!("{path}?reason=too%20large")).status, 202);
    let job = server.wait_for_state(&path, "cancelled");
    assert!(job["error"].as_str().unwrap().contains("too large"), "{job}");
}

#[test]
fn the_slots_of_a_cancelled_job_go_to_the_next() {
    let server = Server::start(&["--slots", "2"]);
    let first = server.job(&training("endless", 2, ENDLESS, 60_000));
    server.wait_until(&first, |job| epochs_done(job) > 0);
    let next = server.job(&training("next", 2, 3, 0));
    let job = server.wait_for_state(&next, "queued");
    let waiting_for = json!({ "required": 2, "free": 0, "ahead": 0 });
    for (what, number) in waiting_for.as_object().unwrap() {
        assert_eq!(&job["waiting_for"][what], number, "{job}");
    }

    let cancelled = Instant::now();
    assert_eq!(server.delete(&format!("{first}?reason=no%20longer%20needed")).status, 202);
    let job = server.wait_for_state(&first, "cancelled");
    assert!(job["error"].as_str().unwrap().contains("no longer needed"), "{job}");
    server.wait_for_state(&next, "succeeded");
    // Far less than the minute that an epoch of the first job lasts.
    assert!(cancelled.elapsed() < Duration::from_secs(10), "{:?}", cancelled.elapsed());
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let server = Server::start(&["--slots", "1"]);
    let refused = |job: Value, parts: &[&str]| assert_error(&server.post(&job), 400, parts);
    refused(training("none", 0, 1, 0), &["tasks is 0", "allowed is 1 to 1024"]);
    refused(training("many", 1025, 1, 0), &["tasks is 1025", "allowed is 1 to 1024"]);
    refused(training("short", 1, 0, 0), &["epochs is 0", "allowed is 1 to"]);
    refused(training("slow", 1, 1, 99_999), &["epoch_ms is 99999", "allowed is 0 to"]);
    refused(training("", 1, 1, 0), &["name is 0", "allowed is 1 to 100"]);
    refused(json!({ "name": "a", "tasks": -1 }), &["-1"]);
    refused(json!({ "name": "a", "tasks": "two" }), &["\"two\""]);
    refused(json!({ "name": "a" }), &["missing", "tasks"]);
    refused(json!({ "name": "a", "tasks": 1, "speed": 9 }), &["speed", "epochs"]);
    let cut_off = server.post_text("application/json", "{\"name\": ");
    assert_error(&cut_off, 400, &["EOF"]);
    let form = server.post_text("application/x-www-form-urlencoded", "name=a");
    assert_error(&form, 400, &["content-type: application/json"]);
    assert_eq!(server.get("/jobs").body, json!([]), "none of them was taken");

    for path in ["/jobs/7", "/jobs/x", "/jobs/-1"] {
        let name = path.trim_start_matches("/jobs/");
        assert_error(&server.get(path), 404, &["no job", name]);
        assert_error(&server.delete(path), 404, &["no job", name]);
    }
    assert_error(&server.get("/"), 404, &["/jobs"]);

    let path = server.job(&training("done", 1, 1, 0));
    server.wait_for_state(&path, "succeeded");
    assert_error(&server.delete(&path), 409, &["job 0", "over", "succeeded"]);
    let path = server.job(&training("endless", 1, ENDLESS, 1));
    assert_error(&server.delete(&format!("{path}?why=so")), 400, &["why", "reason"]);
    assert_eq!(server.delete(&path).status, 202);
    assert_error(&server.delete(&path), 409, &["job 1", "over", "cancelled"]);
}

#[test]
fn sigterm_ends_a_running_job_and_the_service_at_once() {
    let server = Server::start(&["--slots", "2", "--grace", "20s"]);
    let path = server.job(&training("endless", 2, ENDLESS, 60_000));
    server.wait_until(&path, |job| epochs_done(job) > 0);
    let (status, errors, took) = server.terminate();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn sigterm_does_not_wait_for_a_stuck_job_and_names_it() {
    let server = Server::start(&["--slots", "3", "--grace", "300ms"]);
    let running = server.job(&stuck("wedged", 2));
    let cancelled = server.job(&stuck("hung", 1));
    for path in [&running, &cancelled] {
        server.wait_until(path, |job| job["progress"][0]["total"] == 1);
    }
    assert_eq!(server.delete(&cancelled).status, 202);
    let job = server.wait_for_state(&cancelled, "cancelled");
    assert_eq!(job["still_running"], json!([0]), "it ignores its kill: {job}");

    let (status, errors, took) = server.terminate();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    for task in ["partition 0", "partition 1", "'wedged'", "'hung'", "300ms"] {
        assert!(errors.contains(task), "{task:?} is not in {errors:?}");
    }
}

#[test]
fn options_that_cannot_be_used_are_named() {
    for (options, parts) in [
        (["--slots", "0"], ["slots", "\"0\""]),
        (["--grace", "soon"], ["--grace", "soon"]),
        (["--listen", "nowhere"], ["--listen", "nowhere"]),
    ] {
        let output = Command::new(binary()).args(options).output().unwrap();
        assert!(!output.status.success());
        let errors = String::from_utf8(output.stderr).unwrap();
        for part in parts {
            assert!(errors.contains(part), "{part:?} is not in {errors:?}");
        }
    }
}
