//! Processes of contenders: started, waited for, looked at, ended.

use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use weald_tests::harness::wait::pause;

/// Time for a server to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(90);

/// A server that is ended when this is dropped, with the processes it started.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it says goes to that file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child =
            command.spawn().with_context(|| format!("start {:?}", command.get_program()))?;
        Ok(Self { child })
    }

    /// Waits until all of these ports are listened on.
    pub(crate) fn wait_listens(&mut self, ports: &[u16], log: &Path) -> Result<()> {
        let end = Instant::now() + LISTENS_WITHIN;
        let listens = |port: &u16| {
            let address = SocketAddr::from(([127, 0, 0, 1], *port));
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        };
        while !ports.iter().all(listens) {
            let said = || fs::read_to_string(log).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", last_line(&said()));
            }
            if Instant::now() > end {
                bail!("it does not listen within {LISTENS_WITHIN:?}: {}", last_line(&said()));
            }
            pause(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Its process and those below it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut at = 0;
        while let Some(parent) = pids.get(at) {
            pids.extend(children(*parent));
            at += 1;
        }
        pids
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked to end first, so that it ends what it started; our own child, so the id is still its own.
        for (name, patience) in
            [("TERM", Duration::from_secs(10)), ("KILL", Duration::from_secs(5))]
        {
            let pid = self.child.id().to_string();
            Command::new("kill").args(["-s", name, &pid]).status().ok();
            let end = Instant::now() + patience;
            while Instant::now() < end {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                pause(Duration::from_millis(20));
            }
        }
    }
}

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(it said nothing)")
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("children"));
    let lists: Vec<String> = tasks.filter_map(|task| read(task).ok()).collect();
    lists
        .iter()
        .flat_map(|list| list.split_whitespace())
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// A port of loopback that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Processor seconds and resident bytes of processes together.
pub(crate) fn usage(pids: &[u32]) -> Result<(f64, u64)> {
    let (mut ticks, mut rss) = (0_u64, 0_u64);
    for pid in pids {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let stat = read("stat").with_context(|| format!("process {pid} has ended"))?;
        // After the name in parentheses, which may hold anything: utime and stime are the 14th and 15th field.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let times = fields.split_whitespace().skip(11).take(2);
        ticks += times.filter_map(|time| time.parse::<u64>().ok()).sum::<u64>();
        let status = read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        rss += kib.unwrap_or(0) << 10;
    }
    Ok((ticks as f64 / rustix::param::clock_ticks_per_second() as f64, rss))
}
