//! The program as people and other programs call it: exit codes, what is told where, formats, stopping.

mod cache;
mod commands;
mod served;
mod who;

use std::process::Output;

use crate::support::process::told;
use crate::support::team::Team;

/// A team with `s.t`: two good rows and one that does not fit.
fn team() -> Team {
    let team = Team::local();
    team.define(
        "s.t",
        "[source]\nfiles = \"in/*.csv\"\n[load]\nmax_rejects = 0.5\n[[columns]]\nname = \"id\"\ntype = \"int\"\n\
         [[columns]]\nname = \"v\"\ntype = \"string\"\n",
    );
    team.drop_file("in/a.csv", "id,v\n1,a\nx,b\n3,\"c, d\"\n");
    team
}

/// What a run told, after making sure of its exit code.
fn run(team: &Team, arguments: &[&str], code: i32) -> (String, String) {
    texts(&team.run(arguments), code)
}

fn texts(output: &Output, code: i32) -> (String, String) {
    assert_eq!(output.status.code(), Some(code), "{}", told(output));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}
