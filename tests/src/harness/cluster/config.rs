//! What is on the disk of each node: certificate, configuration, data.

use super::{Cluster, Place, Seeds};
use crate::harness::damage::copy;
use crate::harness::node::Site;
use crate::proxy::Bundle;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use weald_link::pki;

/// A copy of a node's data.
#[derive(Debug)]
pub struct Backup(PathBuf);

impl Cluster {
    pub(super) fn make_place(&mut self, node: usize) {
        let dir = self.kept.dir().join(Self::node_name(node));
        let host = self.wires.reached_at(node).ip().to_string();
        let name = Self::node_name(node);
        let bundle = pki::issue(&self.authority, &self.name, &name, &[host]);
        let bundle = bundle.unwrap_or_else(|e| panic!("issue a certificate: {e}"));
        write(&dir.join("ca.pem"), &self.authority.cert_pem);
        write(&dir.join("node.pem"), &bundle.cert_pem);
        write(&dir.join("node.key"), &bundle.key_pem);
        let mut site = Site::with_config(&dir, &dir.join("data"), &self.config(node, &dir));
        site.set_wrapper(self.wires.enter(node));
        if self.options.messages {
            self.wires.open_tls(node, self.bundle(node, &dir));
        }
        let client = self.connect(&dir.join("data"));
        self.places.push(Place { node: None, site, dir, client });
    }

    fn bundle(&self, node: usize, dir: &Path) -> Bundle {
        let server_name = format!("{}.{}.weald.internal", Self::node_name(node), self.name);
        let [authority, certificate, key] =
            ["ca.pem", "node.pem", "node.key"].map(|file| dir.join(file));
        Bundle { server_name, authority, certificate, key }
    }

    fn config(&self, node: usize, dir: &Path) -> String {
        let quoted = |text: &str| format!("\"{text}\"");
        let seeds: Vec<usize> = match self.options.seeds {
            Seeds::All => (0..self.len()).filter(|&other| other != node).collect(),
            Seeds::First => (0..1).filter(|&other| other != node).collect(),
            Seeds::Nobody => Vec::new(),
        };
        let seeds: Vec<_> =
            seeds.iter().map(|&k| quoted(&self.wires.reached_at(k).to_string())).collect();
        let file = |name: &str| quoted(&dir.join(name).to_string_lossy());
        let (listen, reached_at) = (self.wires.listen(node), self.wires.reached_at(node));
        let mut keys: Vec<(String, String)> = [
            ("node.name", quoted(&Self::node_name(node))),
            ("cluster.name", quoted(&self.name)),
            ("cluster.listen", quoted(&listen.to_string())),
            ("cluster.seeds", format!("[{}]", seeds.join(", "))),
            ("cluster.tls_certificate", file("node.pem")),
            ("cluster.tls_key", file("node.key")),
            ("cluster.tls_ca", file("ca.pem")),
            ("storage.partitions", "4".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if listen != reached_at {
            let advertised = format!("[{}]", quoted(&reached_at.to_string()));
            keys.push(("cluster.advertise".to_owned(), advertised));
        }
        keys.extend(self.options.config.iter().cloned());
        toml_of(&keys)
    }

    /// Keys of the configuration of one node, added from its next start on.
    pub fn set_config(&mut self, node: usize, keys: &[(&str, &str)]) {
        let place = &self.places[node];
        let mut text = self.config(node, &place.dir);
        let mut all: toml::Table = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        for (key, value) in keys {
            let (section, key) = key.split_once('.').unwrap_or_else(|| panic!("{key}"));
            let value: toml::Table =
                format!("v = {value}").parse().unwrap_or_else(|e| panic!("{value}: {e}"));
            let section = all.entry(section).or_insert_with(|| toml::Table::new().into());
            if let (Some(section), Some(value)) = (section.as_table_mut(), value.get("v")) {
                section.insert((*key).to_owned(), value.clone());
            }
        }
        text = all.to_string();
        place.site.set_config(&text);
    }

    /// Variables of a node from its next start on.
    pub fn set_env(&mut self, node: usize, env: Vec<(OsString, OsString)>) {
        self.places[node].site.set_node_env(env);
    }

    /// Gives a node the name, certificate and key of another.
    ///
    /// # Panics
    /// When files cannot be copied.
    pub fn impersonate(&mut self, node: usize, other: usize) {
        for file in ["node.pem", "node.key"] {
            let [from, to] = [other, node].map(|k| self.places[k].dir.join(file));
            if let Err(e) = std::fs::copy(&from, &to) {
                panic!("copy {}: {e}", from.display());
            }
        }
        self.set_config(node, &[("node.name", &format!("\"{}\"", Self::node_name(other)))]);
    }

    /// Directory of a node: certificate, configuration, logs, and data unless told otherwise.
    #[must_use]
    pub fn node_dir(&self, node: usize) -> &Path {
        &self.places[node].dir
    }

    /// The certificate of a node.
    #[must_use]
    pub fn certificate(&self, node: usize) -> Bundle {
        self.bundle(node, &self.places[node].dir)
    }

    /// Removes the data of a node that does not run.
    ///
    /// # Panics
    /// When it runs, or its files cannot be removed.
    pub fn wipe(&self, node: usize) {
        assert!(self.places[node].node.is_none(), "n{node} runs");
        let data = self.places[node].site.data();
        if let Err(e) = std::fs::remove_dir_all(data) {
            panic!("remove {}: {e}", data.display());
        }
    }

    /// Copies the data of a node that does not run.
    ///
    /// # Panics
    /// When it runs, or its files cannot be copied.
    #[must_use]
    pub fn backup(&self, node: usize, name: &str) -> Backup {
        assert!(self.places[node].node.is_none(), "n{node} runs");
        let to = self.kept.dir().join(format!("backup-{name}"));
        copy(self.places[node].site.data(), &to);
        Backup(to)
    }

    /// Replaces the data of a node that does not run.
    ///
    /// # Panics
    /// When it runs, or its files cannot be replaced.
    pub fn restore(&self, node: usize, backup: &Backup) {
        let data = self.places[node].site.data().to_owned();
        if matches!(std::fs::exists(&data), Ok(true)) {
            self.wipe(node);
        }
        copy(&backup.0, &data);
    }
}

/// A configuration file of keys `section.key`; the last one of a name counts.
fn toml_of(keys: &[(String, String)]) -> String {
    let mut sections: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for (key, value) in keys {
        let (section, key) = key.split_once('.').unwrap_or_else(|| panic!("{key}"));
        sections.entry(section).or_default().insert(key, value);
    }
    let mut text = String::new();
    for (section, keys) in sections {
        text += &format!("[{section}]\n");
        keys.iter().for_each(|(key, value)| text += &format!("{key} = {value}\n"));
    }
    text
}

fn write(path: &Path, text: &str) {
    let parent = path.parent().unwrap_or_else(|| panic!("{}", path.display()));
    std::fs::create_dir_all(parent).unwrap_or_else(|e| panic!("create {}: {e}", parent.display()));
    std::fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_toml_and_later_keys_win() {
        let keys = [("a.x", "1"), ("b.y", "\"z\""), ("a.x", "2")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let table: toml::Table = toml_of(&keys).parse().unwrap();
        assert_eq!(table["a"]["x"].as_integer(), Some(2));
        assert_eq!(table["b"]["y"].as_str(), Some("z"));
    }
}
