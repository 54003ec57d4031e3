//! Fetching everything: into a file, into a stream in order, or into memory.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::{
    StreamExt,
    stream::{self, FuturesOrdered},
};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Finish, Ground, Session};
use crate::{
    exit::{Exit, Failure},
    holes::Holes,
    id::ContentId,
    net::{Network, blocking},
    part::{Part, Span},
    slice::{Verified, Window},
    tree::GROUP,
};

/// How often what has arrived is made durable, at least.
const CHECKPOINT: Duration = Duration::from_secs(2);
/// Bytes after which it is made durable sooner: so that the disk is busy while more
/// arrives, instead of all at the end.
const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// Length from which on the node is asked to write by itself.
const LANDS_FROM: u64 = 1024 * 1024;

impl<N: Network> Session<N> {
    /// Fetches what is missing in a partial file, several windows at a time. Whatever
    /// happens, what was verified is kept and durable when this returns.
    pub async fn fill(&self, part: &Arc<Part>) -> Result<(), Failure> {
        self.fill_until(part, &AtomicBool::new(false)).await
    }

    /// The same as a part of something that may fail elsewhere: then no more is asked for here.
    pub(crate) async fn fill_until(&self, part: &Arc<Part>, failed: &AtomicBool) -> Result<(), Failure> {
        let result = self.fill_windows(part, &Halt::within(failed)).await;
        let kept = checkpoint(Arc::clone(part)).await;
        result.and(kept)
    }

    async fn fill_windows(&self, part: &Arc<Part>, halt: &Halt<'_>) -> Result<(), Failure> {
        self.touch();
        let (id, size) = (part.span().id, part.span().size);
        let holes = self.holes(id, size).await;
        let windows = part.missing_but(self.window_len(), &holes)?;
        let write = self.writer(part).await;
        let fetches = stream::iter(windows)
            .take_while(|_| std::future::ready(!self.stop.is_set() && !halt.is_set()))
            .map(|window| self.piece(id, size, window, &write, halt))
            .buffer_unordered(self.limits.in_flight.max(1));
        let mut fetches = std::pin::pin!(fetches);
        let mut ticks = tokio::time::interval(CHECKPOINT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.reset();
        let mut saving: Option<tokio::task::JoinHandle<Result<(), Failure>>> = None;
        let mut first: Option<Failure> = None;
        let mut unsaved = 0;
        loop {
            let tick = tokio::select! {
                fetched = fetches.next() => match fetched {
                    Some(Ok(new)) => {
                        self.meter.add_done(new);
                        unsaved += new;
                        false
                    }
                    Some(Err(failure)) => {
                        // What is in flight is paid for: let it arrive, ask for no more.
                        halt.set();
                        first.get_or_insert(failure);
                        false
                    }
                    None => break,
                },
                _ = ticks.tick() => true,
            };
            if saving.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
                first = first.or(saved(saving.take()).await.err());
                if first.is_some() {
                    // Nothing more is kept after a failure.
                    halt.set();
                }
            }
            if saving.is_none() && unsaved > 0 && (tick || unsaved >= CHECKPOINT_BYTES) {
                unsaved = 0;
                saving = Some(tokio::spawn(checkpoint(Arc::clone(part))));
            }
        }
        first = first.or(saved(saving).await.err());
        match first {
            Some(failure) => Err(failure),
            None if (self.stop.is_set() || halt.is_set()) && !part.is_complete() => {
                Err(super::Stop::failure())
            }
            None => Ok(()),
        }
    }

    /// A window; what turns out not to be a hole is fetched as data.
    async fn piece(
        &self,
        id: ContentId,
        size: u64,
        window: Window,
        write: &Arc<Finish<u64>>,
        halt: &Halt<'_>,
    ) -> Result<u64, Failure> {
        let failure = match self.window(id, size, window, write, halt).await {
            Err(failure) if window.is_zeros() => failure,
            other => return other,
        };
        let no_hole =
            matches!(failure.exit, Exit::NotFound | Exit::VerificationFailed | Exit::ForeignVersion);
        if !no_hole || self.pool.offers().is_empty() {
            return Err(failure);
        }
        let mut new = 0;
        let mut at = window.offset();
        while at < window.end() {
            let len = (window.end() - at).min(self.window_len() / GROUP * GROUP);
            let data = Window::new(at, len, size).map_err(crate::part::PartError::from)?;
            new += self.window(id, size, data, write, halt).await?;
            at += len;
        }
        Ok(new)
    }

    /// Windows go into the partial file; by the node itself, where that can and there is enough of them.
    async fn writer(&self, part: &Arc<Part>) -> Arc<Finish<u64>> {
        let (writing, marking) = (Arc::clone(part), Arc::clone(part));
        let take = move |verified: Verified| Ok(writing.write(&verified)?);
        let files = part.files().filter(|_| part.span().len() >= LANDS_FROM);
        let landing = match files {
            Some(files) => self.net.land(&files).await,
            None => None,
        };
        let landed = move |window| Ok(marking.mark(window)?);
        let landing = landing.map(|landing| Ground { landing, landed: Box::new(landed) });
        Arc::new(Finish { take: Box::new(take), landing })
    }

    /// Fetches a span and writes it in order; at most the windows in flight are held in
    /// memory, however slow the reader. They arrive while the reader takes its time: what is in flight is
    /// paid for, and its time runs.
    pub async fn stream(&self, span: &Span, out: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
        self.touch();
        let windows = span.windows(self.window_len(), |_| true, &Holes::default());
        let mut windows = windows.map_err(crate::part::PartError::from)?.into_iter();
        let pass = Finish::new(Ok);
        let failed = AtomicBool::new(false);
        let halt = Halt::within(&failed);
        let (mut in_flight, mut held) = (FuturesOrdered::new(), VecDeque::new());
        let mut first: Option<Failure> = None;
        loop {
            while first.is_none() && in_flight.len() + held.len() < self.limits.in_flight.max(1) {
                let Some(window) = windows.next() else { break };
                in_flight.push_back(self.window(span.id, span.size, window, &pass, &halt));
            }
            tokio::select! {
                Some(arrived) = in_flight.next(), if first.is_none() => match arrived {
                    Ok(verified) => held.push_back(verified.bytes_within(span.start, span.end).into()),
                    Err(failure) => first = Some(failure),
                },
                written = write_some(out, &mut held), if !held.is_empty() => {
                    self.meter.add_done(written.map_err(|error| output(&error))?);
                }
                else => break,
            }
        }
        out.flush().await.map_err(|error| output(&error))?;
        first.map_or(Ok(()), Err)
    }

    /// Fetches a short content into memory. The caller bounds `size`.
    pub async fn bytes(&self, id: ContentId, size: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        self.stream(&Span::whole(id, size), &mut bytes).await?;
        Ok(bytes)
    }
}

/// Writes of what is held as much as is taken at once, which may be given up at any time; how much that was.
async fn write_some(
    out: &mut (impl AsyncWrite + Unpin),
    held: &mut VecDeque<VecDeque<Bytes>>,
) -> io::Result<u64> {
    let Some(parts) = held.front_mut() else { return Ok(0) };
    let mut written = 0;
    if let Some(part) = parts.front_mut() {
        written = out.write(part).await?;
        if written == 0 && !part.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        part.advance(written);
        if part.is_empty() {
            parts.pop_front();
        }
    }
    if parts.is_empty() {
        held.pop_front();
    }
    Ok(written as u64)
}

/// Whether a download, or what it is a part of, has failed: then no more is asked for.
#[derive(Debug)]
pub struct Halt<'a> {
    own: AtomicBool,
    whole: &'a AtomicBool,
}

impl<'a> Halt<'a> {
    pub(super) const fn within(whole: &'a AtomicBool) -> Self {
        Halt { own: AtomicBool::new(false), whole }
    }

    fn set(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.own.load(Ordering::Relaxed) || self.whole.load(Ordering::Relaxed)
    }
}

/// How a checkpoint that may be under way ends.
async fn saved(saving: Option<tokio::task::JoinHandle<Result<(), Failure>>>) -> Result<(), Failure> {
    match saving {
        Some(saving) => {
            saving.await.unwrap_or_else(|error| Err(Failure::new(Exit::Other, error.to_string(), "")))
        }
        None => Ok(()),
    }
}

async fn checkpoint(part: Arc<Part>) -> Result<(), Failure> {
    blocking(move || part.checkpoint()).await?.map_err(Failure::from)
}

fn output(error: &std::io::Error) -> Failure {
    match error.kind() {
        // Whoever reads the output has enough, as `head` does.
        std::io::ErrorKind::BrokenPipe => {
            let fix = "ask for a part with --range, if a part is enough";
            Failure::new(Exit::Other, "the reader of the output is gone", fix)
        }
        // What is written there is kept by nobody.
        _ => Failure {
            fix: "see to what the system says; with -o FILE instead, what has come is kept".to_owned(),
            ..Failure::io("output", error)
        },
    }
}
