use super::*;

#[test]
fn printed_it_reads_back_as_itself() {
    let mut config = Config { slots: 7, ..Config::default() };
    config.kill_zombie_deadline = Some(Duration::from_secs(90));
    config.checkpoint_directory = Some(PathBuf::from("/var/lib/\"odd\" name"));
    let text = config.to_string();
    let mut read = Config::default();
    read.apply_toml(&text, "printed").unwrap();
    assert_eq!(read, config);
}

#[test]
fn toml_tables_dotted_keys_and_numbers_are_taken() {
    let mut config = Config::default();
    let text = "slots = 12\nstage.retry_delay = '1s 500ms'\n[barrier.sync]\ntimeout = '30s'\n";
    config.apply_toml(text, "phalanx.toml").unwrap();
    assert_eq!(config.slots, 12);
    assert_eq!(config.stage_retry_delay, Duration::from_millis(1500));
    assert_eq!(config.barrier_sync_timeout, Duration::from_secs(30));
}

#[test]
fn variables_are_taken_and_others_left_alone() {
    let mut config = Config::default();
    let variables =
        [("PHALANX_PROGRESS_LOG_INTERVAL", "5s"), ("HOME", "/"), ("PHALANX_SLOTS", "3")];
    config.apply_variables(variables.map(|(n, v)| (n.to_owned(), v.to_owned()))).unwrap();
    assert_eq!((config.progress_log_interval, config.slots), (Duration::from_secs(5), 3));
}

#[test]
fn a_bad_value_names_origin_key_value_and_what_is_allowed() {
    let wrong = [
        ("slots", "0"),
        ("slots", "many"),
        ("slots", "-1"),
        ("barrier.sync.timeout", "0s"),
        ("barrier.sync.timeout", "-5s"),
        ("barrier.sync.timeout", "731d"),
        ("barrier.sync.timeout", "soon"),
        ("stage.retry_delay", "200"),
        ("kill.zombie_deadline", "never"),
        ("kill.zombie_deadline", "0s"),
        ("stage.max_attempts", "0"),
        ("sync.max_message_size", "1073741825"),
    ];
    for (key, value) in wrong {
        let before = Config::default();
        let mut config = before.clone();
        let error = config.apply_toml(&format!("{key} = '{value}'"), "a.toml").unwrap_err();
        let text = error.to_string();
        let expected = format!("a.toml: {key} = \"{value}\" is not allowed; allowed is ");
        assert!(text.starts_with(&expected), "{text}");
        assert_eq!(config, before, "nothing was set");
    }
}

#[test]
fn an_unknown_key_names_those_there_are() {
    let mut config = Config::default();
    let toml = config.apply_toml("barier.timeout = '1s'", "a.toml").unwrap_err().to_string();
    assert!(toml.starts_with("a.toml: there is no setting barier.timeout; there are slots, "));
    let variable = [("PHALANX_SLOT".to_owned(), "1".to_owned())];
    let variable = config.apply_variables(variable).unwrap_err().to_string();
    assert!(variable.contains("there is no setting PHALANX_SLOT"), "{variable}");
}

#[test]
fn values_set_in_code_are_checked_as_strictly() {
    let config = Config { barrier_sync_timeout: Duration::ZERO, ..Config::default() };
    let error = config.validate().unwrap_err().to_string();
    assert!(
        error.starts_with("the program: barrier.sync.timeout = \"0s\" is not allowed"),
        "{error}"
    );
    Config::default().validate().unwrap();
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/phalanx.toml"))).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/phalanx.toml: "), "{error}");
}

#[test]
fn what_was_changed_is_told_to_executors_but_not_the_slots() {
    assert_eq!(Config::default().changed_variables(), []);
    let kill_grace = Duration::from_millis(1500);
    let config = Config { slots: 77, worker_threads: 99, kill_grace, ..Config::default() };
    let told = config.changed_variables();
    let expected = [("PHALANX_WORKER_THREADS", "99"), ("PHALANX_KILL_GRACE", "1s 500ms")];
    assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut read = Config::default();
    read.apply_variables(told).unwrap();
    assert_eq!(read, Config { slots: read.slots, ..config });
}
