//! The `lakegate` program: hands its arguments to the library.

fn main() -> std::process::ExitCode {
    lakegate::cli::run()
}
