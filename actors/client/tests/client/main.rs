//! The client against a node in the same process: the real transport and control socket over a fake store.

mod support;

mod attack;
mod calls;
mod examples;
mod names;
mod raw;
mod reconnect;
mod secure;
