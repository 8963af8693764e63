//! Tests of one stream: scripts in the manner of packetdrill, and two streams over an imaginary link.

mod closing;
mod goodput;
mod lossy;
mod pair;
mod resources;
mod script;
mod scripts;
