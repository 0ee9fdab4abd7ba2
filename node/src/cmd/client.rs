//! `client add`, `client remove` and `client list`.

use crate::api::Api;
use crate::args::Client;
use crate::credential;
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Out, columns};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use weald_proto::request::{AddClient, ClientRole, Clients, Credential, RemoveClient};

pub(crate) async fn run<A: Api>(
    api: &A,
    args: Client,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    match args {
        Client::Add { name, role, output } => {
            if let Some(path) = &output {
                refuse_existing(path)?;
            }
            let credential = api.request(AddClient { name, role }, deadline).await?;
            show(&credential, output.as_deref(), out)?;
        }
        Client::Remove { name } => {
            api.request(RemoveClient { name: name.clone() }, deadline).await?;
            if out.is_json() {
                out.json(&json!({ "removed": name }))?;
            }
        }
        Client::List => list(api, deadline, out).await?,
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// Before the node makes a secret: there would be no place for its only copy.
fn refuse_existing(path: &Path) -> Result<(), Failure> {
    match path.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => {
            let text = format!("{} is there already; it is not overwritten", path.display());
            Err(Failure::new(Exit::Usage, text))
        }
        Err(e) => Err(Failure::file("look at", path, &e)),
    }
}

fn show(credential: &Credential, path: Option<&Path>, out: &mut Out) -> Result<(), Failure> {
    let line = credential::line(credential);
    match path {
        None if out.is_json() => out.json(&json!({ "name": credential.name, "credential": line })),
        None => out.line(&line),
        Some(path) => {
            credential::write_new(path, &line).map_err(|e| Failure::file("write", path, &e))?;
            if out.is_json() {
                return out.json(&json!({ "name": credential.name, "file": path }));
            }
            out::note(&format!("credential of {} written to {}", credential.name, path.display()));
            Ok(())
        }
    }
}

async fn list<A: Api>(api: &A, deadline: Duration, out: &mut Out) -> Result<(), Failure> {
    let mut clients = api.request(Clients {}, deadline).await?;
    clients.sort_by(|a, b| a.name.cmp(&b.name));
    if out.is_json() {
        return clients.iter().try_for_each(|client| out.json(client));
    }
    let mut rows = vec![["CLIENT", "ROLE", "CONNECTIONS"].map(ToOwned::to_owned).to_vec()];
    for client in clients {
        let role = match client.role {
            ClientRole::Reader => "reader",
            ClientRole::Writer => "writer",
            ClientRole::Operator => "operator",
        };
        rows.push(vec![client.name, role.to_owned(), client.connections.to_string()]);
    }
    out.bytes(columns(&rows).as_bytes())
}
