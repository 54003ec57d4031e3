//! The command line of `fileshare`, built by this package itself for its tests over processes.

fn main() -> std::process::ExitCode {
    por_fileshare::cli::main()
}
