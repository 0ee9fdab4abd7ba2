//! A disk that fails a sync. Nobody knows then what it holds, so the node must not go on with it.

use std::collections::BTreeMap;
use weald_tests::harness::artefacts::Artefacts;
use weald_tests::harness::node::Site;
use weald_tests::powerloss::record::Recorder;

/// Enough for a boot, and for some writes after it.
const FAILING_SYNC: u64 = 300;
const EXIT_GAVE_UP: i32 = 70;

#[test]
fn failed_sync_ends_the_node_and_the_next_boot_has_all_that_was_acknowledged() {
    let kept = Artefacts::new("lost-disk");
    let recorder = Recorder::compile(kept.dir()).unwrap();
    let mut site = Site::new(kept.dir(), "");
    std::fs::create_dir(site.data()).unwrap();
    let log = kept.dir().join("recorded");
    site.set_node_env(recorder.failing_sync(site.data(), &log, FAILING_SYNC));

    let mut node = site.start();
    let client = node.client();
    let incarnation = client.status()["incarnation"].as_u64().unwrap();
    let mut acked = BTreeMap::new();
    let refused = (0..2 * FAILING_SYNC).find_map(|n| {
        let (key, value) = (format!("k{n}"), format!("v{n}"));
        match client.put("t", &key, value.as_bytes()) {
            Ok(()) => {
                acked.insert(key, value);
                None
            }
            Err(e) => Some(e.to_string()),
        }
    });
    let refused = refused.expect("the sync did not fail");
    assert!(refused.contains("stopped writing"), "{refused}");
    assert!(acked.len() > 10, "only {} writes before the failure", acked.len());
    assert_eq!(node.wait_end().code(), Some(EXIT_GAVE_UP), "{}", node.log_tail());
    drop(node);
    let gave_up = site.supervision_log(&["--event", "intensity_exceeded"]);
    let paths: Vec<_> = gave_up.iter().map(|record| record["path"].as_str().unwrap()).collect();
    assert_eq!(paths.len(), 3, "{paths:?}");
    assert!(paths[0].starts_with("node/storage/partition-"), "{paths:?}");
    assert_eq!(paths[1..], ["node/storage", "node"]);

    site.set_node_env(Vec::new());
    let node = site.start();
    let client = node.client();
    assert!(client.status()["incarnation"].as_u64().unwrap() > incarnation);
    for (key, value) in &acked {
        assert_eq!(client.get("t", key).unwrap(), vec![value.clone().into_bytes()], "{key}");
    }
    node.stop();
}
