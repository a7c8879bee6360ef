//! Rules of loading settings: precedence, refusals and what they say.

use super::*;
use crate::broker::options::MemoryShare;
use crate::server::options::LogFormat;

fn file(text: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tern.toml");
    std::fs::write(&path, text).unwrap();
    (dir, Sources { file: Some(path), ..Sources::default() })
}

fn environment(variables: &[(&str, &str)]) -> Sources {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { environment, ..Sources::default() }
}

fn flag(key: &str, value: &str) -> Flag {
    Flag { name: format!("--set {key}"), key: key.into(), value: value.into() }
}

fn problems(sources: &Sources) -> Vec<String> {
    read(sources).problems().iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_set_gives_the_defaults() {
    let sources = Sources { host_name: Some("box".into()), ..Sources::default() };
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.broker.node_name, "tern@box");
    assert_eq!(settings.broker.cluster_name, "tern@box");
    assert_eq!(settings.amqp, crate::protocol::amqp::Options::default());
    assert_eq!(settings.server, crate::server::Options::default());
}

#[test]
fn every_default_is_allowed_by_its_own_rule() {
    let defaults = Settings::default();
    // Nothing that can be written is the same as writing nothing.
    let is_special =
        |key: &str| key.ends_with(".listeners") || ["stomp.port", "web_stomp.port", "aws.port"].contains(&key);
    for setting in table::SETTINGS.iter().filter(|setting| !is_special(setting.key)) {
        let shown = (setting.show)(&defaults);
        let parsed = setting.rule.parse(&Value::new(None, shown.as_str()));
        let mut settings = defaults.clone();
        let parsed = parsed.unwrap_or_else(|| panic!("{} = {shown}", setting.key));
        (setting.write)(&mut settings, parsed).unwrap();
        assert_eq!(settings, defaults, "{} = {shown}", setting.key);
    }
}

#[test]
fn every_bound_fits_its_field() {
    for setting in table::SETTINGS {
        if let value::Rule::Number { min, max, .. } = setting.rule {
            for number in [min, max] {
                let result = (setting.write)(&mut Settings::default(), value::Parsed::Number(number));
                assert!(result.is_ok(), "{} = {number}", setting.key);
            }
        }
    }
}

#[test]
fn flags_win_over_environment_over_file() {
    let (_dir, mut sources) = file("[amqp]\nport = 1\nchannel_max = 1\nheartbeat_secs = 1\n");
    assert_eq!(Settings::load(&sources).unwrap().server.amqp_port, 1);
    sources.environment = environment(&[("TERN_AMQP_PORT", "2"), ("TERN_AMQP_CHANNEL_MAX", "2")]).environment;
    sources.flags = vec![flag("amqp.port", "3")];
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.server.amqp_port, 3);
    assert_eq!(settings.amqp.channel_max, 2);
    assert_eq!(settings.amqp.heartbeat_secs, 1);
}

#[test]
fn bad_value_names_key_value_source_and_what_is_allowed() {
    let (dir, sources) = file("[amqp]\nframe_max = 12\n");
    let path = dir.path().join("tern.toml").display().to_string();
    let expected = format!(
        "amqp.frame_max = 12 ({path}) is not allowed: it may be bytes from 4KiB to 16MiB, with or without a unit"
    );
    assert_eq!(problems(&sources), [expected]);
    let from_environment = problems(&environment(&[("TERN_AMQP_PORT", "many")]));
    assert_eq!(
        from_environment,
        [
            "amqp.port = \"many\" (environment variable TERN_AMQP_PORT) is not allowed: it may be a whole number from 0 to 65535"
        ]
    );
    let from_flag = Sources { flags: vec![flag("log.level", "loud")], ..Sources::default() };
    assert!(
        problems(&from_flag)[0]
            .starts_with("log.level = \"loud\" (flag --set log.level) is not allowed: it may be off, ")
    );
}

#[test]
fn all_problems_are_found_at_once() {
    let (_dir, mut sources) = file("[amqp]\nfram_max = 12\nchannel_max = 0\n[server]\nbind = \"nowhere\"\n");
    sources.environment = environment(&[("TERN_LOG_FORMAT", "xml")]).environment;
    sources.flags = vec![flag("broker.quues_count_max", "1")];
    assert_eq!(problems(&sources).len(), 5, "{:#?}", problems(&sources));
}

#[test]
fn unknown_key_is_refused_with_the_nearest() {
    let (_dir, sources) = file("[amqp]\nfram_max = 4096\n");
    assert!(problems(&sources)[0].ends_with(" is no setting: did you mean amqp.frame_max?"));
    let from_environment = problems(&environment(&[("TERN_AMQP_FRAM_MAX", "4096")]));
    assert_eq!(from_environment, ["TERN_AMQP_FRAM_MAX (environment) is no setting: did you mean TERN_AMQP_FRAME_MAX?"]);
    let (_dir, sources) = file("[cluster_formation]\npeer_discovery_backend = 1\n");
    assert!(problems(&sources)[0].contains("nothing has a similar name"));
}

#[test]
fn broken_file_is_named() {
    let (dir, sources) = file("[amqp\n");
    let path = dir.path().join("tern.toml").display().to_string();
    assert!(problems(&sources)[0].starts_with(&format!("{path} is not TOML: ")), "{:?}", problems(&sources));
    let missing = Sources { file: Some("/nonexistent/tern.toml".into()), ..Sources::default() };
    assert!(problems(&missing)[0].starts_with("/nonexistent/tern.toml cannot be read: "));
}

#[test]
fn rabbitmq_names_are_accepted_in_the_file() {
    let (_dir, sources) = file(
        r#"
        default_user = "bob"
        default_pass = "secret"
        default_vhost = "v"
        default_user_tags.monitoring = true
        default_permissions.read = "^b"
        listeners.tcp.default = 5673
        vm_memory_high_watermark.relative = 1
        disk_free_limit.absolute = "1GB"
        loopback_users.guest = false
        channel_max = 10
        frame_max = 8192
        heartbeat = 30
        handshake_timeout = 20000
        max_message_size = 1048576
        consumer_timeout = 1800000
        load_definitions = "/etc/definitions.json"
        proxy_protocol = true
        default_queue_type = "quorum"
        password_hashing_module = "rabbit_password_hashing_sha512"
        cluster_name = "c"
        anonymous_login_user = "none"
        log.console.level = "warning"
        log.console.formatter = "json"
        "#,
    );
    let settings = Settings::load(&sources).unwrap();
    assert_eq!((settings.broker.default_user.as_str(), settings.broker.default_pass.as_str()), ("bob", "secret"));
    assert_eq!(settings.broker.default_vhost, "v");
    assert_eq!(settings.broker.default_user_tags, ["monitoring"]);
    assert_eq!(settings.broker.default_permissions_read, "^b");
    assert_eq!(settings.broker.memory_high_watermark, MemoryShare::Relative(1.0));
    assert_eq!(settings.broker.disk_free_limit, MemoryShare::Bytes(1_000_000_000));
    assert!(settings.broker.loopback_users.is_empty());
    assert_eq!(settings.broker.max_message_bytes, 1 << 20);
    assert_eq!(settings.broker.consumer_timeout_ms, Some(1_800_000));
    assert_eq!(settings.broker.default_queue_type.as_str(), "quorum");
    assert_eq!(settings.broker.password_hashing.as_str(), "rabbit_password_hashing_sha512");
    assert_eq!(settings.broker.cluster_name, "c");
    assert_eq!((settings.amqp.channel_max, settings.amqp.frame_max, settings.amqp.heartbeat_secs), (10, 8192, 30));
    assert_eq!(settings.amqp.handshake_timeout_ms, 20_000);
    assert_eq!(settings.amqp.anonymous_login_user, None);
    assert_eq!(settings.server.amqp_port, 5673);
    assert_eq!(settings.server.definitions_file, Some("/etc/definitions.json".into()));
    assert!(settings.server.is_trusted_proxy("203.0.113.1".parse().unwrap()));
    assert_eq!((settings.server.log_level.as_str(), settings.server.log_format), ("warn", LogFormat::Json));
}

#[test]
fn variables_of_the_rabbitmq_image_are_read_and_ours_win() {
    let mut sources = environment(&[
        ("RABBITMQ_DEFAULT_USER", "alice"),
        ("RABBITMQ_DEFAULT_PASS", "x"),
        ("RABBITMQ_DEFAULT_VHOST", ""),
        ("RABBITMQ_NODENAME", "rabbit"),
        ("TERN_BROKER_DEFAULT_USER", "bob"),
    ]);
    sources.host_name = Some("box".into());
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.broker.default_user, "bob");
    assert_eq!(settings.broker.default_pass, "x");
    assert_eq!(settings.broker.default_vhost, "/");
    assert_eq!(settings.broker.node_name, "rabbit@box");
    assert_eq!(settings.broker.cluster_name, "rabbit@box");
}

#[test]
fn secret_may_lie_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pass");
    std::fs::write(&path, "s3cret\n").unwrap();
    let path = path.to_str().unwrap();
    let settings = Settings::load(&environment(&[("RABBITMQ_DEFAULT_PASS_FILE", path)])).unwrap();
    assert_eq!(settings.broker.default_pass, "s3cret");
    let both = environment(&[("RABBITMQ_DEFAULT_PASS_FILE", path), ("RABBITMQ_DEFAULT_PASS", "y")]);
    assert!(problems(&both)[0].contains("is set twice"), "{:?}", problems(&both));
    let missing = environment(&[("TERN_BROKER_DEFAULT_PASS_FILE", "/nonexistent")]);
    assert!(problems(&missing)[0].contains("TERN_BROKER_DEFAULT_PASS_FILE names /nonexistent, which cannot be read"));
}

#[test]
fn secret_is_never_printed() {
    let (_dir, mut sources) = file("default_pass = \"s3cret\"\n");
    assert!(!read(&sources).table().contains("s3cret"));
    sources.flags = vec![flag("default_pass", "")];
    let all = problems(&sources).join("\n");
    assert!(all.contains("broker.default_pass = (not shown)"), "{all}");
}

#[test]
fn service_links_of_an_orchestrator_are_not_settings() {
    let sources = environment(&[
        ("TERN_SERVICE_HOST", "10.0.0.7"),
        ("TERN_PORT", "tcp://10.0.0.7:5672"),
        ("TERN_AMQP_PORT", "tcp://10.0.0.7:5672"),
        ("TERN_AMQP_SERVICE_HOST", "10.0.0.7"),
        ("TERN_AMQP_SERVICE_PORT_AMQP", "5672"),
        ("TERN_AMQP_PORT_5672_TCP_ADDR", "10.0.0.7"),
    ]);
    assert_eq!(problems(&sources), Vec::<String>::new());
    assert_eq!(Settings::load(&sources).unwrap().server.amqp_port, 5672);
}

#[test]
fn anonymous_user_offers_the_mechanism_and_the_mechanism_needs_a_user() {
    let sources = Sources { flags: vec![flag("amqp.anonymous_login_user", "guest")], ..Sources::default() };
    assert_eq!(Settings::load(&sources).unwrap().amqp.mechanisms, ["PLAIN", "AMQPLAIN", "ANONYMOUS"]);
    let sources = Sources { flags: vec![flag("amqp.mechanisms", "ANONYMOUS")], ..Sources::default() };
    assert!(problems(&sources)[0].contains("only with amqp.anonymous_login_user"));
}

#[test]
fn open_listener_with_the_known_password_is_warned_about() {
    let set = |flags: &[(&str, &str)]| {
        let flags = flags.iter().map(|(key, value)| flag(key, value)).collect();
        Settings::load(&Sources { flags, ..Sources::default() }).unwrap().warnings()
    };
    assert!(set(&[]).is_empty());
    assert!(set(&[("server.bind", "0.0.0.0")]).is_empty());
    assert_eq!(set(&[("server.bind", "0.0.0.0"), ("loopback_users", "none")]).len(), 1);
    let open = [("server.bind", "0.0.0.0"), ("loopback_users", "none"), ("broker.default_pass", "s3cret")];
    assert!(set(&open).is_empty());
    let warnings = set(&[open.as_slice(), &[("stomp.default_pass", "s3cret")]].concat());
    assert!(warnings.len() == 1 && warnings[0].contains("stomp.default_user"), "{warnings:?}");
}

#[test]
fn sync_by_the_system_alone_is_warned_about_loudly() {
    let sources = Sources { flags: vec![flag("store.sync", "os")], ..Sources::default() };
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.persistence.log.sync, Sync::Os);
    let warnings = settings.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("CONFIRMED MESSAGES ARE LOST") && warnings[0].contains("store.sync"));
}

#[test]
fn options_of_the_log_that_do_not_fit_together_are_refused_at_load() {
    let problem = |flags: &[(&str, &str)]| {
        let flags = flags.iter().map(|(key, value)| flag(key, value)).collect();
        let problems = problems(&Sources { flags, ..Sources::default() });
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    };
    assert_eq!(
        problem(&[("store.segment_bytes", "4MiB")]),
        "store.segment_bytes = 4MiB (flag --set store.segment_bytes) is not allowed: it may be at least 16789504: \
         room for four batches (batch_bytes_max)"
    );
    assert!(problem(&[("store.batch_bytes_max", "16MiB")]).starts_with("store.segment_bytes = 64MiB (default)"));
    assert!(problem(&[("store.segment_bytes", "67108865")]).contains("a multiple of 4096"));
    assert!(problem(&[("store.reserve_segments", "8")]).starts_with("store.spare_segments_max = 4 (default)"));
    assert!(problem(&[("store.unwritten_bytes_max", "128MiB")]).contains("less than the reserve"));
}

#[test]
fn rates_of_the_store_have_words_for_none() {
    let flags = vec![flag("store.scrub_bytes_per_sec", "off"), flag("store.merge_bytes_per_sec", "unlimited")];
    let reading = read(&Sources { flags, ..Sources::default() });
    assert_eq!(reading.problems(), []);
    let persistence = &reading.settings().persistence;
    assert_eq!((persistence.log.scrub_bytes_per_sec, persistence.index.merge_bytes_per_sec), (0, 0));
    let shown = |key| reading.settings().shown().find(|(name, _)| *name == key).unwrap().1;
    assert_eq!(
        (shown("store.scrub_bytes_per_sec"), shown("store.merge_bytes_per_sec")),
        ("off".into(), "unlimited".into())
    );
}

#[test]
fn table_shows_value_default_and_source() {
    let sources = Sources { flags: vec![flag("amqp.port", "0")], ..Sources::default() };
    let table = read(&sources).table();
    let line = table.lines().find(|line| line.starts_with("amqp.port ")).unwrap();
    let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells[..5], ["amqp.port", "0", "5672", "count", "flag --set amqp.port"]);
}

#[test]
fn other_names_are_variables_too_and_ours_win_over_them() {
    let sources = environment(&[
        ("TERN_DEFINITIONS_FILE", "a.json"),
        ("TERN_FRAME_MAX", "8192"),
        ("TERN_AMQP_FRAME_MAX", "4096"),
    ]);
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.server.definitions_file, Some("a.json".into()));
    assert_eq!(settings.amqp.frame_max, 4096);
}

#[test]
fn foreign_variable_is_left_alone_unless_it_is_a_slip_away() {
    assert_eq!(
        problems(&environment(&[("TERN_VERSION", "1.2"), ("TERN_CONFIG", "x"), ("TERN_HOME", "/")])),
        Vec::<String>::new()
    );
    let slip = problems(&environment(&[("TERN_DEFINITION_FILE", "a.json")]));
    assert_eq!(slip, ["TERN_DEFINITION_FILE (environment) is no setting: did you mean TERN_DEFINITIONS_FILE?"]);
}

#[test]
fn no_value_of_any_kind_panics() {
    let texts = [
        "",
        "off",
        "auto",
        "-1",
        "0",
        "18446744073709551615",
        "1e400",
        "NaN",
        ",",
        "[",
        "(",
        "@",
        "\u{0}",
        "0660",
        "99999999TiB",
    ];
    let mut values: Vec<Value> = texts.iter().map(|text| Value::new(None, *text)).collect();
    values.extend([i64::MIN, -1, 0, 7, i64::MAX].map(|number| Value::new(None, number)));
    values.extend([f64::NAN, f64::INFINITY, -0.5, 0.5].map(|number| Value::new(None, number)));
    values.extend([true, false].map(|flag| Value::new(None, flag)));
    values.extend([vec![], vec!["", "x"]].map(|list| Value::new(None, list)));
    values.push(Value::default());
    for setting in table::SETTINGS {
        for value in &values {
            let mut settings = Settings::default();
            if let Some(parsed) = setting.rule.parse(value) {
                let _ = (setting.write)(&mut settings, parsed);
            }
            assert!(!(setting.show)(&settings).is_empty() || value::text(value).is_some(), "{}", setting.key);
        }
    }
}
