//! Peers that mean ill.
