//! The `weald.toml` of a node that is made by a command.

use crate::config::value::Value;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Ports of the other services, as far from their defaults as the cluster port is from its own.
const CLUSTER_PORT: u16 = 18086;
const LISTENERS: [(&str, u16); 3] = [("http", 18080), ("admin", 18081), ("rawsocket", 18082)];

/// Where the certificates are, as the file should name them.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) authority: String,
}

/// What stands in the file.
#[derive(Debug, Clone)]
pub(crate) struct NodeFile {
    /// The command that makes it.
    pub(crate) made_by: &'static str,
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) data_dir: String,
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Vec<String>,
    pub(crate) seeds: Vec<String>,
    pub(crate) tls: Tls,
}

impl NodeFile {
    /// The file.
    pub(crate) fn text(&self) -> String {
        let text = |text: &str| Value::Text(text.to_owned()).toml();
        let list = |list: &[String]| Value::List(list.to_vec()).toml();
        let mut out = format!(
            "# Node {} of cluster {}, made by `{}`. `weald config default` lists all keys.\n\n\
             [node]\nname = {}\n",
            self.name,
            self.cluster,
            self.made_by,
            text(&self.name),
        );
        if self.data_dir.starts_with('.') {
            out.push_str("# Relative to where the node is started.\n");
        }
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            out.write_fmt(args).ok();
            out.push('\n');
        };
        line(format_args!("data_dir = {}\n\n[cluster]", text(&self.data_dir)));
        line(format_args!("name = {}", text(&self.cluster)));
        line(format_args!("listen = {}", text(&self.listen.to_string())));
        if !self.advertise.is_empty() {
            line(format_args!("# Where other nodes reach this one."));
            line(format_args!("advertise = {}", list(&self.advertise)));
        }
        line(format_args!("# Other nodes; one that answers is enough."));
        line(format_args!("seeds = {}", list(&self.seeds)));
        line(format_args!("# Relative to this file."));
        line(format_args!("tls_certificate = {}", text(&self.tls.certificate)));
        line(format_args!("tls_key = {}", text(&self.tls.key)));
        line(format_args!("tls_ca = {}", text(&self.tls.authority)));
        let offset = i32::from(self.listen.port()) - i32::from(CLUSTER_PORT);
        if offset != 0 && self.listen.ip().is_loopback() {
            line(format_args!("\n[listeners]"));
            for (name, port) in LISTENERS {
                let port = u16::try_from(i32::from(port) + offset).unwrap_or(0);
                let address = SocketAddr::new(self.listen.ip(), port);
                line(format_args!("{name} = {}", text(&address.to_string())));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_node_of_a_machine_has_all_its_ports_moved() {
        let file = NodeFile {
            made_by: "weald dev",
            name: "b".to_owned(),
            cluster: "blue".to_owned(),
            data_dir: "./data".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], CLUSTER_PORT + 100)),
            advertise: Vec::new(),
            seeds: vec!["127.0.0.1:18086".to_owned()],
            tls: Tls {
                certificate: "node.pem".to_owned(),
                key: "node.key".to_owned(),
                authority: "ca.pem".to_owned(),
            },
        };
        let expected = "\
# Node b of cluster blue, made by `weald dev`. `weald config default` lists all keys.

[node]
name = \"b\"
# Relative to where the node is started.
data_dir = \"./data\"

[cluster]
name = \"blue\"
listen = \"127.0.0.1:18186\"
# Other nodes; one that answers is enough.
seeds = [\"127.0.0.1:18086\"]
# Relative to this file.
tls_certificate = \"node.pem\"
tls_key = \"node.key\"
tls_ca = \"ca.pem\"

[listeners]
http = \"127.0.0.1:18180\"
admin = \"127.0.0.1:18181\"
rawsocket = \"127.0.0.1:18182\"
";
        assert_eq!(file.text(), expected);
    }
}
