//! The command `fileshare`.

/// Much is allocated here by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    por_fileshare::cli::main()
}
