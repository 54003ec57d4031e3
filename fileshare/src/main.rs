//! The command `fileshare`.

fn main() -> std::process::ExitCode {
    por_fileshare::cli::main()
}
