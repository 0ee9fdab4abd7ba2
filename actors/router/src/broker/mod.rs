//! PubSub: publications, subscriptions, what is kept for later.

pub(crate) mod history;
pub(crate) mod publication;
pub(crate) mod publish;
pub(crate) mod retained;
pub(crate) mod subscribe;
