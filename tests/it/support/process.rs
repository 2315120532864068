//! The `lakegate` program as a process of its own, with faults asked for by `FAILPOINTS`.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The program, to be given arguments. It runs in `folder`, without what the environment has for AWS clients.
pub fn lakegate(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakegate"));
    command.current_dir(folder).stdin(Stdio::null()).env_remove("FAILPOINTS");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command
}

/// The same with one fault, such as `("lake.commit.before", "return(kill)")`.
pub fn lakegate_with_fault(folder: &Path, point: &str, action: &str) -> Command {
    let mut command = lakegate(folder);
    command.env("FAILPOINTS", format!("{point}={action}"));
    command
}

/// What a finished process wrote, for messages of failed assertions.
pub fn told(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A running process that is killed when the test ends.
pub struct Running(pub Child);

impl Running {
    pub fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Whether the process is stopped by a signal (state `T`), as `freeze` faults do. Linux only.
    pub fn is_frozen(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
