//! Commands on the store of this machine.

use std::{fs, io::Read, path::Path};

use serde::Serialize;

use super::{
    Context,
    args::{Pin, Put},
    halt::Halt,
    print_line,
};
use crate::{
    dir::put_tree,
    exit::{Exit, Failure},
    id::ContentId,
    net::blocking,
    progress::{Hashing, bytes},
    store::{AddOptions, Added, Store},
};

pub async fn put(context: &Context, put: Put) -> Result<(), Failure> {
    let store = context.store().await?;
    let style = context.style;
    let halt = Halt::default();
    let its = halt.clone();
    let adding = async {
        blocking(move || {
            let options = AddOptions { copy: put.copy, only_hash: put.only_hash };
            let name = put.path.display().to_string();
            if put.path == Path::new("-") {
                let hashing = Hashing::start("stdin", None, style);
                let from = Awaited { from: std::io::stdin().lock(), halt: &its };
                let added = store.add_reader(from, options, &mut |n| {
                    its.step();
                    hashing.add(n);
                })?;
                return Ok(added);
            }
            let metadata = fs::metadata(&put.path).map_err(|error| Failure::io(&name, &error))?;
            if metadata.is_dir() && !put.recursive {
                return Err(Failure::new(Exit::Usage, format!("{name} is a directory"), "pass -r to put it"));
            }
            let total = metadata.is_file().then_some(metadata.len());
            let hashing = Hashing::start(&name, total, style);
            add(&store, &put.path, metadata.is_dir(), options, &mut |n| {
                its.step();
                hashing.add(n);
            })
        })
        .await?
    };
    let added = halt.run(adding, interrupted(), interrupted()).await?;
    context.print(&added.id.to_string(), &added)
}

/// Input that may come for ever, or never.
struct Awaited<'a, R> {
    from: R,
    halt: &'a Halt,
}

impl<R: Read> Read for Awaited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.halt.waiting(|| self.from.read(buffer))
    }
}

fn add(
    store: &Store,
    path: &Path,
    directory: bool,
    options: AddOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Added, Failure> {
    if directory {
        return put_tree(store, path, options, progress);
    }
    Ok(store.add_file(path, options, progress)?)
}

/// Returns at the first Ctrl-C; never, if there cannot be any.
pub(super) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub async fn pin(context: &Context, pin: Pin) -> Result<(), Failure> {
    let store = context.store().await?;
    match pin {
        Pin::Add { ids } => {
            blocking(move || ids.iter().try_for_each(|id| store.pin(id))).await??;
            Ok(())
        }
        Pin::Rm { ids } => {
            let missing = blocking(move || {
                let mut missing = Vec::new();
                for id in ids {
                    if !store.unpin(&id)? {
                        missing.push(id);
                    }
                }
                Ok::<_, Failure>(missing)
            });
            match missing.await??.first() {
                Some(id) => {
                    Err(Failure::new(Exit::NotFound, format!("{id} is not pinned"), "`fileshare pin ls`"))
                }
                None => Ok(()),
            }
        }
        Pin::Ls => {
            for pinned in blocking(move || pinned(&store)).await?? {
                let text = pinned.id.to_string();
                context.print(&text, &pinned)?;
            }
            Ok(())
        }
    }
}

#[derive(Serialize)]
struct Pinned {
    id: ContentId,
    size: Option<u64>,
}

fn pinned(store: &Store) -> Result<Vec<Pinned>, Failure> {
    let mut pins = Vec::new();
    for id in store.pins()? {
        let size = store.get(&id)?.map(|entry| entry.size);
        pins.push(Pinned { id, size });
    }
    Ok(pins)
}

pub async fn rm(context: &Context, ids: Vec<ContentId>) -> Result<(), Failure> {
    let store = context.store().await?;
    blocking(move || {
        for id in ids {
            store.unpin(&id)?;
            store.remove(&id)?;
        }
        Ok(())
    })
    .await?
}

pub async fn gc(context: &Context) -> Result<(), Failure> {
    let store = context.store().await?;
    let collected = blocking(move || store.gc()).await??;
    if context.json {
        return context.print("", &collected);
    }
    let (items, files) = (collected.items, collected.files);
    context.say(&format!("removed {items} items, {files} files, {}", bytes(collected.bytes)));
    Ok(())
}

/// Lines to stdout.
pub(super) fn print_lines(lines: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    lines.into_iter().try_for_each(|line| print_line(&line))
}
