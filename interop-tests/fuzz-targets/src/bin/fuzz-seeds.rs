//! Writes the first corpus: `cargo run -p por-fuzz-targets --bin fuzz-seeds -- interop-tests/fuzz/corpus`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(std::io::Error::other("name the folder of the corpus"));
    };
    for (target, run) in por_fuzz_targets::TARGETS {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in por_fuzz_targets::seeds::of(target) {
            std::fs::write(folder.join(format!("seed-{name}")), &bytes)?;
            run(&bytes);
        }
    }
    Ok(())
}
