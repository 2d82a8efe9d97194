//! Part of the protocol.
