//! The ways in which two agents can talk, each as one would build it today.

pub(crate) mod grpc;
pub(crate) mod mqtt;
pub(crate) mod pilot;
pub(crate) mod polling;
pub(crate) mod webhook;
pub(crate) mod websocket;
