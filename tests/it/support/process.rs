//! The `lakegate` program as a process of its own, with faults asked for by `FAILPOINTS`.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The program, to be given arguments: the one cargo built with the tests, or what `LAKEGATE_TEST_PROGRAM` names.
/// It runs in `folder`, without what the environment has for AWS clients, and keeps results of queries there.
pub(crate) fn lakegate(folder: &Path) -> Command {
    let program = std::env::var_os("LAKEGATE_TEST_PROGRAM");
    let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_lakegate").into()));
    command.current_dir(folder).stdin(Stdio::null()).env_remove("FAILPOINTS");
    command.env("XDG_CACHE_HOME", folder.join("cache-home"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.starts_with("LAKEGATE_")) {
        command.env_remove(name);
    }
    command
}

/// The same with one fault, such as `("lake.commit.before", "return(kill)")`.
pub(crate) fn lakegate_with_fault(folder: &Path, point: &str, action: &str) -> Command {
    let mut command = lakegate(folder);
    command.env("FAILPOINTS", format!("{point}={action}"));
    command
}

/// What a finished process wrote, for messages of failed assertions.
pub(crate) fn told(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A running process that is killed when the test ends.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Waits for its end. The process must not write more than a pipe holds, 64 KiB, before.
    pub(crate) fn finish(mut self) -> Output {
        use std::io::Read;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        Output { status: self.0.wait().unwrap(), stdout, stderr }
    }

    /// Waits until the process is stopped by a signal, as `freeze` faults do, or has ended; tells which.
    pub(crate) fn wait_frozen(&mut self) -> bool {
        loop {
            if self.0.try_wait().unwrap().is_some() {
                return false;
            }
            let state = Command::new("ps").args(["-o", "stat=", "-p", &self.0.id().to_string()]).output().unwrap();
            if state.stdout.first() == Some(&b'T') {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Lets a frozen process go on.
    pub(crate) fn thaw(&self) {
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
