//! Calls of other nodes' sessions, at callees of this node.

use std::sync::Arc;

use weald_storage::NodeId;

use super::CallKey;
use crate::dealer::answer::Reply;
use crate::realm::Realm;
use crate::session::Work;
use crate::session::handle::Handle;

pub(crate) fn answered(
    _realm: &Arc<Realm>,
    _work: &mut Work,
    _callee: &Handle,
    _node: NodeId,
    _key: CallKey,
    _reply: Reply,
    _may_reroute: bool,
) {
}
