//! Input that means harm: bytes of nobody's making, messages that lie about themselves, storms of connections. The server
//! answers with a status that says what is wrong, keeps its memory, and goes on serving others.

#[path = "../fuzz/harness.rs"]
mod harness;

mod bombs;
mod fuzz;
mod storms;
