//! The program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use hookcast::cli::{Cli, EXIT_FAILED, Exit, Program};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let program = Program {
        serve: |_config| Box::pin(async { Err(Exit::new(EXIT_FAILED, "this build has no relay in it")) }),
        protocols: &["ndjson", "sse"],
    };
    actix_web::rt::System::new().block_on(cli.run(program))
}
