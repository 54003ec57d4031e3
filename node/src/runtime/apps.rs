//! Apps that are served by local clients: queues and leases.
//!
//! A request that a client has taken is leased to it. If no answer comes within the lease, because
//! the client crashed, the next poll gets the request again; an answer that comes late is taken
//! all the same. An app that nobody polls for is not served any longer, so that new requests are
//! rejected at once instead of waiting for nobody.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p_por::{Control, FairQueue, RespondError, Serving};
use parking_lot::Mutex;
use por_core::AppPricing;
use por_types::{MAX_APP_LEN, RequestId};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::incoming::{Incoming, Opener};
use super::other;
use crate::alarm::Alarm;
use crate::client::{AppStatus, ClientError, ErrorCode};

/// Time in which a client should answer a request that it has taken.
const LEASE: Duration = Duration::from_secs(60);
/// An app without a poll for this long is no longer served.
const ABANDONED: Duration = Duration::from_secs(180);
/// How often a server that leaves is told whether all is answered.
const LEAVING: Duration = Duration::from_millis(20);
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Most apps of a node.
const MAX_APPS: usize = 256;

/// All served apps; cheap to clone.
#[derive(Clone)]
pub(crate) struct Apps {
    control: Control,
    opener: Opener,
    apps: Arc<Mutex<HashMap<String, Arc<App>>>>,
    /// Those that handlers of this process serve.
    inside: Arc<Mutex<Vec<Weak<Inside>>>>,
    /// One at a time is put in the place of an app's server: who comes last with the driver must be last here
    /// too, or polls would wait at a queue that nothing comes to.
    placing: Arc<tokio::sync::Mutex<()>>,
    /// Raised when requests of an app are no longer taken: each would be paid late for.
    alarm: Alarm,
}

struct App {
    pricing: AppPricing,
    /// Takes no more requests.
    leaves: bool,
    queue: Mutex<Queue>,
    arrived: Notify,
    /// Moves requests from the protocol into the queue; dropping it stops serving.
    pump: OnceLock<AbortHandle>,
}

struct Queue {
    /// Neighbours' requests in turn, whoever sent more.
    waiting: FairQueue<Arc<Incoming>>,
    leased: HashMap<RequestId, Lease>,
    polled: Instant,
    /// Clients that wait in a poll right now.
    polling: u32,
}

/// An app that handlers of this process serve, as the status shows it: until it is dropped.
pub(crate) struct Inside {
    app: String,
    pricing: AppPricing,
    /// A handler at work holds one.
    hands: Arc<()>,
}

impl Inside {
    pub(crate) fn hand(&self) -> Arc<()> {
        self.hands.clone()
    }
}

struct Lease {
    request: Arc<Incoming>,
    until: Instant,
}

impl Queue {
    fn push(&mut self, request: Incoming) {
        let bytes = (request.body().len() as u64).saturating_add(request.response_limit());
        self.waiting.push(request.from(), request.author(), bytes, Arc::new(request));
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.get() {
            pump.abort();
        }
    }
}

impl Apps {
    pub(crate) fn new(control: Control, opener: Opener, alarm: Alarm) -> Apps {
        let (apps, inside, placing) = Default::default();
        Apps { control, opener, apps, inside, placing, alarm }
    }

    /// Serves an app from now on; again with other settings if it is served already. With a `max_queued` of 0
    /// no more requests are taken, and polls end when those from before are answered.
    pub(crate) async fn serve(
        &self,
        name: &str,
        pricing: AppPricing,
        max_queued: u32,
    ) -> Result<(), ClientError> {
        check_name(name)?;
        let _placing = self.placing.lock().await;
        {
            let apps = self.apps.lock();
            if apps.len() >= MAX_APPS && !apps.contains_key(name) {
                let message = format!("{MAX_APPS} apps are served already");
                return Err(ClientError::new(ErrorCode::Retryable, message, "stop serving one of them"));
            }
        }
        let serving = self.control.serve(name, pricing, max_queued).await.map_err(|_| stopped())?;
        let queue = Queue {
            waiting: FairQueue::default(),
            leased: HashMap::new(),
            polled: Instant::now(),
            polling: 0,
        };
        let (queue, arrived) = (Mutex::new(queue), Notify::new());
        let (leaves, pump) = (max_queued == 0, OnceLock::new());
        let app = Arc::new(App { pricing, leaves, queue, arrived, pump });
        // Begun when the app is there: what waits for it may come at once.
        let pump = self.clone().pump(name.to_owned(), serving, Arc::downgrade(&app));
        let pump = tokio::spawn(self.alarm.clone().guard("queue of an app", pump));
        let _ = app.pump.set(pump.abort_handle());
        let before = self.apps.lock().insert(name.to_owned(), app);
        if let Some(before) = before {
            if before.pricing != pricing {
                tracing::warn!(app = name, "the app is served with another price from now on");
            }
            before.arrived.notify_waiters();
        }
        Ok(())
    }

    /// Moves requests into the queue until nobody sends any more.
    async fn pump(self, name: String, mut serving: Serving, app: Weak<App>) {
        while let Some(request) = serving.next().await {
            let Some(request) = self.opener.open(request).await else { continue };
            let Some(app) = app.upgrade() else { return };
            app.queue.lock().push(request);
            app.arrived.notify_one();
        }
        // Somebody else serves the app, or the node stops. Who takes its place here does so first.
        let _placing = self.placing.lock().await;
        let Some(app) = app.upgrade() else { return };
        if self.is_placed(&name, &app) {
            self.stop(&name);
        }
    }

    /// Stops serving; new requests are rejected. No error if it was not served.
    pub(crate) fn stop(&self, name: &str) {
        let stopped = self.apps.lock().remove(name);
        if let Some(app) = stopped {
            // Whoever polls learns that it is not served any more, and does not hold it.
            app.arrived.notify_waiters();
        }
    }

    /// The next request that waits for an answer; `None` if none came within `wait`.
    ///
    /// Errors: `NotFound` if the app is not served, or takes no more requests and has answered all.
    pub(crate) async fn next(
        &self,
        name: &str,
        wait: Duration,
    ) -> Result<Option<Arc<Incoming>>, ClientError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            // Each time anew: the app may be stopped, or served with other settings, meanwhile.
            let app = self.app(name)?;
            let _polling = Polling::begin(&app);
            let arrived = app.arrived.notified();
            // Only from here on it is woken when another one comes in the app's place.
            if !self.is_placed(name, &app) {
                continue;
            }
            if let Some(request) = app.take(Instant::now()) {
                return Ok(Some(request));
            }
            let mut until = deadline;
            if app.leaves {
                if self.control.unanswered(name).await.map_err(|_| stopped())? == 0 {
                    return Err(not_served(name));
                }
                // That the last one is answered is told to nobody.
                until = until.min(tokio::time::Instant::now() + LEAVING);
            }
            if tokio::time::timeout_at(until, arrived).await.is_err() && until == deadline {
                return Ok(app.take(Instant::now()));
            }
        }
    }

    /// Answers a request.
    ///
    /// Errors: `NotFound` if the app is not served or the request is not waiting (any more);
    /// `Usage` if the body is longer than the request pays for.
    pub(crate) async fn respond(&self, name: &str, id: RequestId, body: Bytes) -> Result<(), ClientError> {
        let app = self.app(name)?;
        let request = app.find(&id).ok_or_else(|| {
            let message = format!("no request {id} waits for an answer");
            ClientError::new(
                ErrorCode::NotFound,
                message,
                "it was answered already, or came before a restart",
            )
        })?;
        request.respond(body).await.map_err(|error| match error {
            RespondError::TooLarge { .. } => {
                ClientError::new(ErrorCode::Usage, error.to_string(), "shorten the answer")
            }
            RespondError::Stopped(_) => stopped(),
            error => other(error.to_string()),
        })?;
        app.finish(&id);
        Ok(())
    }

    /// Shows an app that handlers of this process serve, until what this answers is dropped.
    pub(crate) fn show(&self, app: &str, pricing: AppPricing) -> Result<Arc<Inside>, ClientError> {
        check_name(app)?;
        let shown = Arc::new(Inside { app: app.to_owned(), pricing, hands: Arc::default() });
        let mut inside = self.inside.lock();
        inside.retain(|shown| shown.strong_count() > 0);
        inside.push(Arc::downgrade(&shown));
        Ok(shown)
    }

    pub(crate) async fn status(&self) -> Vec<AppStatus> {
        let mut all = self.of_clients();
        let inside: Vec<Arc<Inside>> = self.inside.lock().iter().filter_map(Weak::upgrade).collect();
        for shown in inside {
            let unanswered = self.control.unanswered(shown.app.as_str()).await.unwrap_or_default();
            let at_work = Arc::strong_count(&shown.hands) - 1;
            all.push(AppStatus {
                app: shown.app.clone(),
                base: shown.pricing.base,
                per_byte: shown.pricing.per_byte,
                waiting: count(unanswered.saturating_sub(at_work)),
                leased: count(at_work),
            });
        }
        all.sort_by(|a, b| a.app.cmp(&b.app));
        all
    }

    fn of_clients(&self) -> Vec<AppStatus> {
        let apps = self.apps.lock();
        apps.iter()
            .map(|(name, app)| {
                let queue = app.queue.lock();
                AppStatus {
                    app: name.clone(),
                    base: app.pricing.base,
                    per_byte: app.pricing.per_byte,
                    waiting: count(queue.waiting.len()),
                    leased: count(queue.leased.len()),
                }
            })
            .collect()
    }

    /// Stops serving apps whose clients have gone, and wakes polls for leases that ran out.
    pub(crate) async fn sweep(self) -> Result<(), ClientError> {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let now = Instant::now();
            self.apps.lock().retain(|name, app| {
                let queue = app.queue.lock();
                let abandoned = queue.polling == 0 && now.duration_since(queue.polled) > ABANDONED;
                if abandoned {
                    tracing::warn!(app = name, "nobody polls for this app any more; it is not served");
                }
                if queue.leased.values().any(|lease| lease.until <= now) {
                    app.arrived.notify_one();
                }
                !abandoned
            });
        }
    }

    fn is_placed(&self, name: &str, app: &Arc<App>) -> bool {
        self.apps.lock().get(name).is_some_and(|placed| Arc::ptr_eq(placed, app))
    }

    fn app(&self, name: &str) -> Result<Arc<App>, ClientError> {
        self.apps.lock().get(name).cloned().ok_or_else(|| not_served(name))
    }
}

impl App {
    /// A request whose lease ran out, else the one whose turn it is; leased from `now` on.
    fn take(&self, now: Instant) -> Option<Arc<Incoming>> {
        let mut queue = self.queue.lock();
        let expired = queue.leased.iter().find(|(_, lease)| lease.until <= now).map(|(id, _)| *id);
        let request = match expired {
            Some(id) => queue.leased.remove(&id)?.request,
            None => queue.waiting.pop()?,
        };
        let lease = Lease { request: request.clone(), until: now + LEASE };
        queue.leased.insert(request.id(), lease);
        if !queue.waiting.is_empty() {
            self.arrived.notify_one();
        }
        Some(request)
    }

    fn find(&self, id: &RequestId) -> Option<Arc<Incoming>> {
        let queue = self.queue.lock();
        let leased = queue.leased.get(id).map(|lease| lease.request.clone());
        leased.or_else(|| queue.waiting.iter().find(|request| request.id() == *id).cloned())
    }

    fn finish(&self, id: &RequestId) {
        let mut queue = self.queue.lock();
        if queue.leased.remove(id).is_none() {
            queue.waiting.retain(|request| request.id() != *id);
        }
    }
}

/// Notes that a client polls, also when the poll is dropped half way.
struct Polling<'a>(&'a App);

impl<'a> Polling<'a> {
    fn begin(app: &'a App) -> Polling<'a> {
        app.queue.lock().polling += 1;
        Polling(app)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.polling = queue.polling.saturating_sub(1);
        queue.polled = Instant::now();
    }
}

/// Errors: [`ErrorCode::Usage`].
pub(super) fn check_name(name: &str) -> Result<(), ClientError> {
    if name.is_empty() || name.len() > MAX_APP_LEN {
        let message = format!("app names have 1 to {MAX_APP_LEN} bytes");
        return Err(ClientError::new(ErrorCode::Usage, message, "use a shorter name, or any at all"));
    }
    Ok(())
}

fn not_served(name: &str) -> ClientError {
    let message = format!("app {name:?} is not served");
    ClientError::new(ErrorCode::NotFound, message, "POST /v1/apps/APP/serve first")
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn stopped() -> ClientError {
    other("the node is shutting down")
}

#[cfg(test)]
mod tests;
