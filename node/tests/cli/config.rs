//! Configuration and help, without a node.

use crate::support::{Node, Ran, command};

fn run(node: &Node, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    command(node.dir.path()).args(args).envs(variables.iter().copied()).output().unwrap().into()
}

#[test]
fn default_file_passes_the_check() {
    let node = Node::stopped();
    let text = run(&node, &["config", "default"], &[]).ok().text();
    assert!(text.contains("# Number of partitions"));
    node.write("weald.toml", &text);
    let checked = run(&node, &["config", "check", "weald.toml"], &[]).ok();
    assert_eq!(checked.text(), "weald.toml is fine\n");
    run(&node, &["config", "check"], &[]).ok();
}

#[test]
fn check_lists_all_problems_with_lines_and_suggestions() {
    let node = Node::stopped();
    node.write("weald.toml", "[storage]\npartitons = 4\nmap_size = \"big\"\n\n[lgo]\nlevel = 1\n");
    let checked = run(&node, &["config", "check", "weald.toml"], &[]).exits(78);
    let text = checked.text();
    assert!(
        text.contains(
            "weald.toml:2: storage.partitons: unknown key; did you mean storage.partitions?"
        ),
        "{text}"
    );
    assert!(text.contains("weald.toml:3: storage.map_size: "), "{text}");
    assert!(text.contains("weald.toml:5: lgo: unknown section; did you mean [log]?"), "{text}");
    let json = run(&node, &["config", "check", "--json"], &[]).exits(78).json().remove(0);
    assert_eq!(json["problems"].as_array().unwrap().len(), 3);
    assert_eq!(json["problems"][0]["line"], 2);
    let started = run(&node, &["start"], &[]).exits(78);
    assert!(started.stderr.contains("did you mean storage.partitions?"), "{}", started.stderr);
    run(&node, &["config", "check", "absent.toml"], &[]).exits(78);
}

#[test]
fn show_says_where_each_value_came_from() {
    let node = Node::stopped();
    node.write("weald.toml", "[storage]\n\npartitions = 4\n");
    let variables = [("WEALD_NODE__SHUTDOWN_TIMEOUT", "1m")];
    let shown = run(&node, &["config", "show", "--data-dir", "elsewhere"], &variables).ok().text();
    let source = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(" # ").unwrap_or_default().1.to_owned()
    };
    assert_eq!(source("partitions = 4"), "weald.toml:3");
    assert_eq!(
        source("shutdown_timeout = \"1m\""),
        "environment variable WEALD_NODE__SHUTDOWN_TIMEOUT"
    );
    assert_eq!(source("data_dir = \"elsewhere\""), "flag --data-dir");
    assert_eq!(source("durability = \"full\""), "default");
    // What it prints is itself a configuration.
    node.write("again.toml", &shown);
    run(&node, &["config", "check", "again.toml"], &[]).ok();
    let json = run(&node, &["config", "show", "--json"], &[]).ok().json().remove(0);
    assert!(json["keys"].as_array().unwrap().len() > 20);
}

#[test]
fn help_has_examples_and_exit_codes_and_usage_errors_their_own() {
    let node = Node::stopped();
    let help = run(&node, &["--help"], &[]).ok().text();
    assert!(help.contains("75  start: another process holds the data directory"), "{help}");
    assert!(run(&node, &["import", "--help"], &[]).ok().text().contains("Examples:"));
    run(&node, &["--version"], &[]).ok();
    run(&node, &["start", "--nonsense"], &[]).exits(64);
    run(&node, &["get", "only-a-table"], &[]).exits(2);
    run(&node, &["stauts"], &[]).exits(2);
    run(&node, &[], &[]).exits(2);
    run(&node, &["status", "--node", "127.0.0.1:1"], &[]).exits(2);
}

#[test]
fn plan_is_printed_in_boot_order() {
    let node = Node::stopped();
    let plan = run(&node, &["boot-plan"], &[]).ok().text();
    assert!(plan.find("lock").unwrap() < plan.find("store").unwrap());
    assert_eq!(run(&node, &["start", "--plan"], &[]).ok().text(), plan);
    let json = run(&node, &["boot-plan", "--json"], &[]).ok().json().remove(0);
    assert_eq!(json[0]["step"], "config");
}
