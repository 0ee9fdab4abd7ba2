//! A node on the command line: `NAME[=HOST[:PORT],...]`.

use crate::exit::{Exit, Failure};
use std::net::IpAddr;
use weald_cluster::gate::cluster::is_host_port;
use weald_link::pki::is_name;

/// Names that mean something else where nodes have their directories.
const RESERVED: [&str; 2] = [super::CA_CERTIFICATE, super::CA_KEY];

/// A node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeSpec {
    /// Its name.
    pub(crate) name: String,
    /// Where it is reached, with the port if one was given.
    pub(crate) hosts: Vec<(String, Option<u16>)>,
}

impl NodeSpec {
    /// Reads what was typed.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let refuse = |why: String| Failure::new(Exit::Usage, format!("--node {text:?}: {why}"));
        let (name, hosts) = match text.split_once('=') {
            Some((name, hosts)) => (name, hosts.split(',').collect()),
            None => (text, Vec::new()),
        };
        if !is_name(name) || name.starts_with(['.', '-']) || RESERVED.contains(&name) {
            let why = "a name is 1 to 64 letters, digits, '-', '_' or '.', begins with a letter or digit, and \
                       is followed by =HOST[:PORT],... or nothing";
            return Err(refuse(why.to_owned()));
        }
        let hosts = hosts.into_iter().map(|host| parse_host(host).ok_or(host));
        let hosts = hosts.collect::<Result<Vec<_>, _>>().map_err(|host| {
            refuse(format!(
                "{host:?} is no HOST or HOST:PORT, such as 10.0.0.1, db1.example.org or [::1]:18086"
            ))
        })?;
        Ok(Self { name: name.to_owned(), hosts })
    }

    /// Whether it can be reached from its own machine only.
    pub(crate) fn is_local(&self) -> bool {
        self.hosts.iter().all(|(host, _)| is_loopback(host))
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn parse_host(text: &str) -> Option<(String, Option<u16>)> {
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if is_host_port(text) {
        let (host, port) = text.rsplit_once(':')?;
        return Some((bare(host), Some(port.parse().ok()?)));
    }
    let host = bare(text);
    let is_host = host.parse::<IpAddr>().is_ok() || is_host_port(&format!("{text}:1"));
    (is_host && !host.contains('/')).then_some((host, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_with_their_hosts() {
        let spec = NodeSpec::parse("a=10.0.0.1,db.example:7,[::1]:8,fe80::1").unwrap();
        assert_eq!(spec.name, "a");
        let hosts = spec.hosts.iter().map(|(host, port)| (host.as_str(), *port));
        let expected =
            [("10.0.0.1", None), ("db.example", Some(7)), ("::1", Some(8)), ("fe80::1", None)];
        assert_eq!(hosts.collect::<Vec<_>>(), expected);
        assert!(!spec.is_local());
        assert!(NodeSpec::parse("a").unwrap().is_local());
        assert!(NodeSpec::parse("a=localhost,127.0.0.1:1,::1").unwrap().is_local());
    }

    #[test]
    fn what_cannot_be_a_node_is_refused() {
        for bad in
            ["", "=", "a b", "../a", "..", ".a", "-a", "ca.key", "a=", "a=b,", "a=b:0", "a=b c"]
        {
            assert!(NodeSpec::parse(bad).is_err(), "{bad:?}");
        }
    }
}
