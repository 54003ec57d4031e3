//! The daemon and command line `por`.

fn main() -> std::process::ExitCode {
    por_node::cli::main()
}
