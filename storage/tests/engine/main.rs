//! The engine on real files: one test binary, so that it is linked once.
//!
//! A test that has to die (a kill in the middle of a commit) or that may meet damage runs in a
//! child: this binary started again with [`support::CHILD`] set and one test selected.

mod crud;
mod support;
mod child;
