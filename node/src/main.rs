//! The daemon and command line `por`.

/// Much is allocated here by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    por_node::cli::main()
}
