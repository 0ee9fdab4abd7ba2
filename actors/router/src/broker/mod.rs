//! PubSub: publications, subscriptions, what is kept for later.

pub(crate) mod form;
pub mod history;
pub(crate) mod publication;
pub(crate) mod publish;
pub mod retained;
pub(crate) mod subscribe;
