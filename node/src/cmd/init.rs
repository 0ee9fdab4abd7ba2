//! `cluster init`: an authority and the files of nodes.

use crate::args::Init;
use crate::bundle::{
    self, CA_CERTIFICATE, NODE_CERTIFICATE, NODE_CONFIG, NODE_KEY, NodeFile, NodeSpec, Tls,
};
use crate::config::{self, Flags};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Out};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use weald_link::pki::is_name;

/// Port of a node that is given none.
const PORT: u16 = 18086;
/// Between the ports of two nodes of one machine.
const PORT_STEP: u16 = 100;
/// Most nodes in one directory.
const NODES_MAX: usize = 1024;

/// A node with the place it is given.
struct Placed {
    spec: NodeSpec,
    listen: SocketAddr,
    /// Where others reach it, `host:port`.
    addresses: Vec<String>,
}

pub(crate) fn run(args: &Init, out: &mut Out) -> Outcome {
    let dir = args.out.as_path();
    if !is_name(&args.cluster) {
        let text = format!(
            "--cluster {:?}: a name is 1 to 64 letters, digits, '-', '_' or '.'",
            args.cluster
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    let specs: Vec<NodeSpec> =
        args.nodes.iter().map(|text| NodeSpec::parse(text)).collect::<Result<_, _>>()?;
    let known = known_nodes(dir)?;
    check(&specs, dir, known.len())?;
    let placed = place(specs, &known)?;

    let authority = bundle::authority(dir, &args.cluster)?;
    // All certificates before any file of a node: what cannot be issued leaves nothing half done.
    let issued = placed.iter().map(|node| {
        let hosts: Vec<String> = node.spec.hosts.iter().map(|(host, _)| host.clone()).collect();
        bundle::issue(&authority, &args.cluster, &node.spec.name, &hosts)
    });
    let issued: Vec<_> = issued.collect::<Result<_, _>>()?;
    warn_of_hidden(&placed);
    let mut made = Vec::new();
    for (node, certificate) in placed.iter().zip(&issued) {
        let others = placed.iter().filter(|other| other.spec.name != node.spec.name);
        let seeds = known.iter().chain(others.flat_map(|other| other.addresses.first()));
        let file = node_file(node, &args.cluster, seeds.cloned().collect());
        let name = &node.spec.name;
        let path = bundle::write_node(dir, name, &authority, certificate, Some(&file.text()))?;
        made.push((node, path));
    }
    show(args, &made, out)?;
    out.flush()?;
    Ok(Exit::Ok)
}

fn check(specs: &[NodeSpec], dir: &Path, known: usize) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for spec in specs {
        if !names.insert(&spec.name) {
            let text =
                format!("node {:?} is given twice: names are unique in a cluster", spec.name);
            return Err(Failure::new(Exit::Usage, text));
        }
        bundle::check_free(dir, &spec.name)?;
    }
    if specs.len() + known > NODES_MAX {
        let text =
            format!("{} nodes in one directory are more than {NODES_MAX}", specs.len() + known);
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(())
}

/// Where the nodes are reached that were made earlier.
fn known_nodes(dir: &Path) -> Result<Vec<String>, Failure> {
    let mut known = Vec::new();
    if !bundle::is_there(dir)? {
        return Ok(known);
    }
    let entries = std::fs::read_dir(dir).map_err(|e| Failure::file("read", dir, &e))?;
    for entry in entries {
        let path = entry.map_err(|e| Failure::file("read", dir, &e))?.path().join(NODE_CONFIG);
        if !path.is_file() {
            continue;
        }
        let flags = Flags { config: Some(path), values: Vec::new() };
        let cluster = config::load(&flags, std::iter::empty()).config.cluster;
        let listens = cluster.listen.to_string();
        known.push(cluster.advertise.into_iter().next().unwrap_or(listens));
    }
    known.sort();
    Ok(known)
}

/// Gives each node its addresses. Nodes of this machine get ports of their own.
fn place(specs: Vec<NodeSpec>, known: &[String]) -> Result<Vec<Placed>, Failure> {
    let mut taken: BTreeSet<u16> =
        known.iter().filter_map(|address| address.rsplit_once(':')?.1.parse().ok()).collect();
    let given = specs.iter().flat_map(|spec| spec.hosts.iter().filter_map(|(_, port)| *port));
    taken.extend(given);
    let placed = specs.into_iter().map(|spec| {
        let given = spec.hosts.iter().find_map(|(_, port)| *port);
        let port = match given {
            Some(port) => port,
            None if spec.is_local() => free_port(&mut taken)?,
            None => PORT,
        };
        let ip = if spec.is_local() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let listen = SocketAddr::new(IpAddr::V4(ip), port);
        let address = |(host, own): &(String, Option<u16>)| {
            let port = own.unwrap_or(port);
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        let mut addresses: Vec<String> = spec.hosts.iter().map(address).collect();
        if addresses.is_empty() {
            addresses.push(listen.to_string());
        }
        Ok(Placed { spec, listen, addresses })
    });
    placed.collect()
}

fn free_port(taken: &mut BTreeSet<u16>) -> Result<u16, Failure> {
    let mut ports = (PORT..=u16::MAX).step_by(usize::from(PORT_STEP));
    let port = ports.find(|port| !taken.contains(port)).ok_or_else(|| {
        let text = "no ports are left for nodes of this machine: give them as NAME=HOST:PORT";
        Failure::new(Exit::Usage, text)
    })?;
    taken.insert(port);
    Ok(port)
}

/// A node that only its own machine reaches is of no use to those on others.
fn warn_of_hidden(placed: &[Placed]) {
    if placed.iter().all(|node| node.spec.is_local()) {
        return;
    }
    for Placed { spec: NodeSpec { name, .. }, .. } in placed.iter().filter(|n| n.spec.is_local()) {
        out::note(&format!(
            "note: node {name} is reached from its own machine only; to have others reach it, give \
             --node {name}=HOST"
        ));
    }
}

fn node_file(node: &Placed, cluster: &str, seeds: Vec<String>) -> NodeFile {
    // Nodes of one machine must not share a directory; one alone on its machine is found without --data-dir.
    let data_dir = if node.spec.is_local() {
        format!("./weald-data-{}", node.spec.name)
    } else {
        "./weald-data".to_owned()
    };
    NodeFile {
        made_by: "weald cluster init",
        name: node.spec.name.clone(),
        cluster: cluster.to_owned(),
        data_dir,
        listen: node.listen,
        advertise: if node.spec.hosts.is_empty() { Vec::new() } else { node.addresses.clone() },
        seeds,
        tls: Tls {
            certificate: NODE_CERTIFICATE.to_owned(),
            key: NODE_KEY.to_owned(),
            authority: CA_CERTIFICATE.to_owned(),
        },
    }
}

fn show(args: &Init, made: &[(&Placed, PathBuf)], out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        let nodes = made.iter().map(|(node, path)| {
            json!({
                "name": node.spec.name,
                "directory": path,
                "config": path.join(NODE_CONFIG),
                "addresses": node.addresses,
            })
        });
        return out.json(&json!({
            "cluster": args.cluster,
            "authority": args.out.join(CA_CERTIFICATE),
            "nodes": nodes.collect::<Vec<_>>(),
        }));
    }
    let dir = args.out.display();
    out.line(&format!(
        "cluster {} in {dir}; keep {dir}/ca.key secret: it makes nodes",
        args.cluster
    ))?;
    for (node, path) in made {
        let address = node.addresses.first().map_or("", String::as_str);
        out.line(&format!("  {}  {address}  {}", node.spec.name, path.display()))?;
    }
    out.line("\nNext, on the machine of each node, with its directory copied there:")?;
    for (_, path) in made {
        out.line(&format!("  weald start --config {}", path.join(NODE_CONFIG).display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(nodes: &[&str], known: &[&str]) -> Vec<(String, Vec<String>)> {
        let specs = nodes.iter().map(|node| NodeSpec::parse(node).unwrap()).collect();
        let known: Vec<String> = known.iter().map(|&address| address.to_owned()).collect();
        let placed = place(specs, &known).unwrap();
        placed.into_iter().map(|node| (node.listen.to_string(), node.addresses)).collect()
    }

    #[test]
    fn nodes_of_one_machine_get_ports_of_their_own() {
        let found = placed(&["a", "b=localhost", "c=127.0.0.1:18286", "d"], &["127.0.0.1:18086"]);
        let listens: Vec<&str> = found.iter().map(|(listen, _)| listen.as_str()).collect();
        let expected = ["127.0.0.1:18186", "127.0.0.1:18386", "127.0.0.1:18286", "127.0.0.1:18486"];
        assert_eq!(listens, expected);
        assert_eq!(found[1].1, ["localhost:18386"]);
    }

    #[test]
    fn nodes_of_several_machines_share_the_port_and_tell_their_hosts() {
        let found = placed(&["a=10.0.0.1,db.example:7", "b=fd00::1"], &[]);
        assert_eq!(
            found[0],
            ("0.0.0.0:7".to_owned(), vec!["10.0.0.1:7".into(), "db.example:7".into()])
        );
        assert_eq!(found[1], ("0.0.0.0:18086".to_owned(), vec!["[fd00::1]:18086".into()]));
    }
}
