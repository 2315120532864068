//! Named places where tests can make the program fail, die or freeze. Without the `fail` crate's
//! `failpoints` feature, which only test builds switch on, each of them compiles to nothing.

/// A fault that a test asked for.
#[derive(Debug, thiserror::Error)]
#[error("fault injected at {0}")]
pub struct Fault(pub &'static str);

/// A place that can fail. Configured by `FAILPOINTS="name=return(what)"` in the environment of the
/// process; `what` is `error` (this call fails), `kill` (the process dies at once, nothing is
/// cleaned up) or `freeze` (the process is stopped until somebody continues it). `3*off->return(kill)`
/// lets three calls pass first.
///
/// # Errors
/// When a test asked for an error here.
pub fn point(name: &'static str) -> Result<(), Fault> {
    if fail::has_failpoints() {
        fail::fail_point!(name, |what| act(name, what.as_deref()));
    }
    let _ = (name, act);
    Ok(())
}

/// Reads the faults asked for from the environment; to be called once when the program starts.
/// What it returns has to live as long as the program.
pub fn setup() -> Option<fail::FailScenario<'static>> {
    fail::has_failpoints().then(fail::FailScenario::setup)
}

fn act(name: &'static str, what: Option<&str>) -> Result<(), Fault> {
    let own = rustix::process::getpid();
    let signal = match what {
        Some("kill") => rustix::process::Signal::KILL,
        Some("freeze") => rustix::process::Signal::STOP,
        _ => return Err(Fault(name)),
    };
    // A process may always signal itself; were it refused, the fault would be the plain error.
    rustix::process::kill_process(own, signal).map_err(|_| Fault(name))
}
