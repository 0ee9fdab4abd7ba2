//! Who dials, on one machine: the kernel knows which process holds the socket of a port.

use std::net::SocketAddr;
use std::path::Path;

/// Number of the process that holds the loopback IPv4 socket with this local port, among those asked for.
///
/// # Shape
/// `/proc/net/tcp` has a line per socket, its second field `address:port` in hexadecimal, its tenth the inode; the
/// descriptors of a process are links to `socket:[inode]`.
#[must_use]
pub fn holder(peer: SocketAddr, among: &[u32]) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let port = format!(":{:04X}", peer.port());
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(1)?.ends_with(&port).then(|| fields.get(9).map(ToString::to_string))?
    })?;
    let wanted = format!("socket:[{inode}]");
    let holds = |pid: &u32| {
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.flatten().any(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|to| to.as_path() == Path::new(&wanted))
        })
    };
    among.iter().copied().find(holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn own_socket_is_found_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = std::process::id();
        let port = dialled.local_addr().unwrap();
        assert_eq!(holder(port, &[1, own]), Some(own));
        assert_eq!(holder(port, &[1]), None);
    }
}
