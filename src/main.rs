//! Arguments to commands, commands to exit codes.

use std::process::ExitCode;

fn main() -> ExitCode {
    task_processor::commands::run(task_processor::handlers::all())
}
