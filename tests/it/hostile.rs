//! Input that means harm: bytes of nobody's making, messages that lie about themselves, storms of connections. The server
//! answers with a status that says what is wrong, keeps its memory, and goes on serving others.

#[expect(unreachable_pub, reason = "it is the library of the fuzz targets as well")]
#[path = "../fuzz/harness.rs"]
mod harness;

mod bombs;
mod fuzz;
mod storms;
