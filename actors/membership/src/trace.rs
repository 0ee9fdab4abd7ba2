//! Events of the membership as lines of the log.

use tracing::{info, warn};

use crate::core::Event;

/// Logs an event under its stable name.
pub(crate) fn log(happened: &Event) {
    let event = happened.name();
    match happened {
        Event::Joined { node, name }
        | Event::Up { node, name }
        | Event::Leaving { node, name }
        | Event::Left { node, name }
        | Event::Unfenced { node, name } => info!(event, %node, member = %name, "member changed"),
        Event::Suspect { node, name }
        | Event::Down { node, name }
        | Event::Evicted { node, name }
        | Event::Fenced { node, name } => warn!(event, %node, member = %name, "member changed"),
        Event::Moved { node, name, addresses } => {
            info!(event, %node, member = %name, ?addresses, "member listens elsewhere");
        }
        Event::Restarted { node, name, incarnation } => {
            info!(event, %node, member = %name, incarnation, "member has a new incarnation");
        }
        Event::NameConflict { name, one, other } => {
            warn!(event, member = %name, %one, %other, "two live nodes have one name");
        }
        Event::Replaced { name, old, new } => {
            warn!(event, member = %name, %old, %new, "a new node takes the place of one that is down");
        }
        Event::SelfEvicted => warn!(event, "this node was evicted from the cluster"),
        Event::SelfFenced => warn!(event, "this node was away too long and has to catch up"),
        Event::SelfYielded { name, to } => {
            warn!(event, member = %name, %to, "this node leaves, as a live member has its name");
        }
        Event::Overflow { node } => warn!(event, %node, "the view is full, a record was dropped"),
    }
}
