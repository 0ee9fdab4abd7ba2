//! Layers, problems and where they come from, one situation each.

use super::*;

fn of_toml(text: &str) -> Loaded {
    let mut loaded =
        load(&Flags { config: Some("/dev/null".into()), values: Vec::new() }, std::iter::empty());
    loaded.read_toml(Path::new("weald.toml"), text);
    loaded.check_rules();
    loaded
}

fn with_variables(variables: &[(&str, &str)]) -> Loaded {
    let flags = Flags { config: Some("/dev/null".into()), values: Vec::new() };
    load(&flags, variables.iter().map(|(name, value)| (name.into(), value.into())))
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn file_with_several_faults_lists_all_with_lines() {
    let loaded = of_toml(
        "[storage]\npartitons = 4\ndurability = \"fast\"\nmap_size = \"2GiB\"\n\
         map_size_max = \"1GiB\"\n\n[clutser]\nlisten = \"x\"\n\n[log]\nlevel = 3\n",
    );
    assert_eq!(
        texts(&loaded.problems),
        [
            "weald.toml:2: storage.partitons: unknown key; did you mean storage.partitions?",
            "weald.toml:3: storage.durability: \"fast\" is not one of \"full\", \"relaxed\"",
            "weald.toml:7: clutser: unknown section; did you mean [cluster]?",
            "weald.toml:11: log.level: 3 is not a string in quotes",
            "weald.toml:4: storage.map_size 2GiB is over storage.map_size_max 1GiB",
        ]
    );
}

#[test]
fn file_with_syntax_errors_lists_them_and_the_rest() {
    let loaded = of_toml("[storage]\npartitions = = 4\n[log]\nlevle = \"info\"\n");
    let texts = texts(&loaded.problems);
    assert!(texts[0].starts_with("weald.toml:2: "), "{texts:?}");
    assert!(
        texts.contains(&"weald.toml:4: log.levle: unknown key; did you mean log.level?".to_owned()),
        "{texts:?}"
    );
}

#[test]
fn key_outside_its_section_is_told_where_it_belongs() {
    let loaded = of_toml("partitions = 4\n");
    assert_eq!(
        texts(&loaded.problems),
        ["weald.toml:1: partitions: unknown key outside of any section; \
          did you mean storage.partitions?"]
    );
}

#[test]
fn variables_override_the_file_and_are_typed_by_the_key() {
    let loaded = with_variables(&[
        ("WEALD_STORAGE__PARTITIONS", "16"),
        ("WEALD_CLUSTER__LISTEN", "127.0.0.1:0"),
        ("WEALD_DATA_DIR", "/d"),
        ("WEALD_NODE__SHUTDOWN_TIMEOUT", "1m"),
    ]);
    assert_eq!(texts(&loaded.problems), [""; 0]);
    assert_eq!(loaded.config.storage.partitions, 16);
    assert_eq!(loaded.config.cluster.listen.port(), 0);
    assert_eq!(loaded.config.node.data_dir, Path::new("/d"));
    assert_eq!(loaded.config.node.shutdown_timeout.as_secs(), 60);
    assert_eq!(
        loaded.source("storage.partitions").to_string(),
        "environment variable WEALD_STORAGE__PARTITIONS"
    );
    assert_eq!(loaded.source("log.level"), &Source::Default);
}

#[test]
fn variables_that_name_no_key_are_problems_or_warnings() {
    let loaded = with_variables(&[
        ("WEALD_STORAGE__PARTITONS", "16"),
        ("WEALD_STORAGE_PARTITIONS", "16"),
        ("WEALD_SERVICE_HOST", "10.0.0.1"),
        ("WEALD_LOG__LEVEL", "nonsense=very"),
    ]);
    let problems = texts(&loaded.problems);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("environment variable WEALD_LOG__LEVEL: log.level: "));
    assert_eq!(
        problems[1],
        "environment variable WEALD_STORAGE__PARTITONS: names no key; \
         did you mean WEALD_STORAGE__PARTITIONS?"
    );
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn paths_of_certificates_are_relative_to_their_file() {
    let mut loaded = of_toml("");
    let text = "[cluster]\ntls_certificate = \"node.pem\"\ntls_key = \"/k/node.key\"\n\
                tls_ca = \"\"\n";
    loaded.read_toml(Path::new("pki/a/weald.toml"), text);
    let cluster = &loaded.config.cluster;
    assert_eq!(cluster.tls_certificate.as_deref(), Some(Path::new("pki/a/node.pem")));
    assert_eq!(cluster.tls_key.as_deref(), Some(Path::new("/k/node.key")));
    assert_eq!(cluster.tls_ca, None);
}

#[test]
fn addresses_of_other_nodes_are_checked_wherever_they_come_from() {
    let loaded = of_toml("[cluster]\nseeds = [\"a:1\", \"b\"]\nadvertise = \"a:1\"\n");
    let found = texts(&loaded.problems);
    assert_eq!(found[0], "weald.toml:2: cluster.seeds: \"b\" is not of the form host:port");
    assert!(found[1].starts_with("weald.toml:3: cluster.advertise: "), "{found:?}");
    let loaded = with_variables(&[("WEALD_CLUSTER__SEEDS", "a:1, [::1]:2")]);
    assert_eq!(loaded.config.cluster.seeds, ["a:1", "[::1]:2"]);
    let loaded = of_toml("[cluster]\ndiscovery = \"dns\"\n");
    assert!(texts(&loaded.problems)[0].contains("cluster.dns_names"));
    let open = "[cluster]\nlisten = \"0.0.0.0:1\"\nallow_plaintext = true\nseeds = [\"a:1\"]\n";
    assert!(texts(&of_toml(open).problems)[0].contains("cluster.advertise"));
    assert_eq!(of_toml(&format!("{open}advertise = [\"me:1\"]\n")).problems, []);
}

#[test]
fn wrong_values_of_client_ports_are_told_with_what_was_expected() {
    let text = "[listeners]\nhttp = \"localhost:80\"\nproxies = [\"10.0.0.0/99\"]\n\
                websocket_path = \"ws?\"\ntls_version_min = \"1.1\"\norigins = [\"example.com\"]\n\
                [clients]\nping_interval = \"10ms\"\nslow = \"wait\"\nmessage_size = \"1GiB\"\n\
                connections_max = 0\n[realm]\nhistory = [\"com example\"]\ntrust_level = -1\n\
                uri_rules = \"exact\"\ndisclosure = true\n";
    let found = texts(&of_toml(text).problems);
    let expected = [
        "weald.toml:2: listeners.http: \"localhost:80\" is not an IP address and port, as \
         \"127.0.0.1:18086\", or empty",
        "weald.toml:3: listeners.proxies: \"10.0.0.0/99\" is neither an IP address nor a network, \
         as \"10.0.0.0/8\"",
        "weald.toml:4: listeners.websocket_path: \"ws?\" is not the path of a URL, as \"/ws\"",
        "weald.toml:5: listeners.tls_version_min: \"1.1\" is not one of \"1.2\", \"1.3\"",
        "weald.toml:6: listeners.origins: ",
        "weald.toml:8: clients.ping_interval: \"10ms\" is not a duration from 100ms to 1h, as \
         \"10s\", or \"0s\"",
        "weald.toml:9: clients.slow: \"wait\" is not one of \"disconnect\", \"drop\"",
        "weald.toml:10: clients.message_size: \"1GiB\" is not a size from 512B to 16MiB, as \
         \"64MiB\"",
        "weald.toml:11: clients.connections_max: 0 is not a whole number from 1 to 1000000",
        "weald.toml:13: realm.history: \"com example\" is no topic: ",
        "weald.toml:14: realm.trust_level: -1 is not a whole number from 0 to 1000000, or \"none\"",
        "weald.toml:15: realm.uri_rules: \"exact\" is not one of \"loose\", \"strict\"",
        "weald.toml:16: realm.disclosure: true is not one of \"on-request\", \"always\", \"never\"",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn ports_with_tls_and_certificates_go_together() {
    let port = "[listeners]\nhttps = \"127.0.0.1:0\"\n";
    let found = texts(&of_toml(port).problems);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("weald.toml:2: listeners.https and "), "{found:?}");
    let files = "tls_certificate = \"a.pem\"\ntls_key = \"a.key\"\n";
    let loaded = of_toml(&format!("{port}{files}"));
    assert_eq!(loaded.problems, []);
    // Beside the file, which is in no directory here.
    let key = loaded.config.listeners.tls_key;
    assert_eq!(key.as_deref(), Some(Path::new("a.key")));
    let found = texts(&of_toml(&format!("[listeners]\n{files}")).problems);
    assert!(found[0].contains("are of no use without listeners.https"), "{found:?}");
}

#[test]
fn ports_are_switched_off_by_nothing_and_take_either_family() {
    let loaded = of_toml("[listeners]\nhttp = \"\"\nrawsocket = \"[::1]:18082\"\n");
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.config.listeners.http, None);
    assert!(loaded.config.listeners.rawsocket.is_some_and(|address| address.is_ipv6()));
    let loaded = with_variables(&[
        ("WEALD_LISTENERS__HTTP", ""),
        ("WEALD_LISTENERS__PROXIES", "10.0.0.0/8, ::1"),
        ("WEALD_CLIENTS__PING_INTERVAL", "0s"),
        ("WEALD_REALM__HISTORY", "com.a, prefix:com.b."),
        ("WEALD_REALM__TRUST_LEVEL", "3"),
    ]);
    assert_eq!(texts(&loaded.problems), [""; 0]);
    assert_eq!(loaded.config.listeners.http, None);
    assert_eq!(loaded.config.listeners.proxies.len(), 2);
    assert!(loaded.config.clients.ping_interval.is_zero());
    let history = loaded.config.realm.history;
    assert_eq!(history[1].to_string(), "prefix:com.b.");
    assert_eq!(loaded.config.realm.trust_level, Some(3));
}

#[test]
fn flags_win_and_a_named_file_must_be_there() {
    let flags = Flags {
        config: Some("/nonexistent/weald.toml".into()),
        values: vec![("node.data_dir", "--data-dir", "/flag".into())],
    };
    let environment = [(OsString::from("WEALD_DATA_DIR"), OsString::from("/variable"))];
    let loaded = load(&flags, environment.into_iter());
    assert_eq!(loaded.config.node.data_dir, Path::new("/flag"));
    assert_eq!(loaded.source("node.data_dir"), &Source::Flag("--data-dir"));
    assert_eq!(loaded.problems.len(), 1);
}
