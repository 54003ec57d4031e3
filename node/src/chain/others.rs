//! What the endpoints show of single channels, beside the copy of the graph, which comes from one of them.
//!
//! An endpoint that lies within bounds is believed in what the graph at large is like. Where money depends on
//! it, one word is not enough: evidence has its time, and whoever hides that it runs, or says that the contract
//! knows all already, has the other side paid out by an old state. So of each channel that matters all endpoints are
//! asked from time to time, and what any of them shows is acted on if that cannot do harm.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use por_types::interface::{ChannelStatus, ChannelView, MAX_PAGE, Params};
use por_types::{ChannelId, Totals};

/// Ids that one question asks for: the first, and how many from there on.
pub(crate) type Page = (ChannelId, u32);

/// Longest and shortest time in which all channels are asked of once, and between two questions.
const SWEEP: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(250));
/// Between two questions there is no less than this, however many channels there are, if a sweep takes longer.
const PAUSE: Duration = Duration::from_secs(1);
/// How often what is new is asked of before the rest, while some who answer are behind it.
const TRIES: u8 = 8;
/// Sweeps in the shortest window for evidence.
const SWEEPS: u64 = 8;

/// What one endpoint at the head of the chain shows of a page of channels.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// Of the block that it speaks of.
    pub height: u64,
    pub channels: BTreeMap<ChannelId, ChannelView>,
}

/// What all endpoints have shown of some channels.
pub(crate) struct Others {
    channels: BTreeMap<ChannelId, Looked>,
    /// The last channel that was asked of.
    after: Option<ChannelId>,
    sweep: Duration,
    /// Longest time between two acts on what only some show.
    longest: Duration,
    /// When the next question is due.
    due: Instant,
    /// Since the last act on what only some show of a channel, and how long it is left alone.
    vain: HashMap<ChannelId, (Instant, Duration)>,
}

/// One channel.
struct Looked {
    /// As the copy of the graph has it; `None` if it is not there.
    known: Option<ChannelView>,
    /// How high the chain was when it became known like this: who has not come so far has no say.
    since: u64,
    /// By each that has a say.
    answers: Vec<Option<ChannelView>>,
    /// Questions since it became known like this, [`TRIES`] once all who answer have a say.
    asked: u8,
}

impl Looked {
    /// It is relied on, and not everybody has said yet what it is like.
    fn is_new(&self) -> bool {
        self.asked < TRIES && !is_over(self.known.as_ref())
    }

    /// It is over, and nobody says otherwise.
    fn is_settled(&self) -> bool {
        is_over(self.known.as_ref())
            && !self.answers.is_empty()
            && self.answers.iter().all(|answer| is_over(answer.as_ref()))
    }
}

impl Others {
    /// For a contract with these parameters: all channels are asked of several times in a window.
    pub(crate) fn new(params: &Params) -> Others {
        let window = params.challenge_ms.min(params.notice_ms) / SWEEPS;
        let longest = Duration::from_millis(window).max(SWEEP.1);
        let sweep = longest.min(SWEEP.0);
        let channels = BTreeMap::new();
        Others { channels, after: None, sweep, longest, due: Instant::now(), vain: HashMap::new() }
    }

    /// These channels matter, and are known like this while the chain is at `height`; no others.
    pub(crate) fn know<'v>(
        &mut self,
        known: impl Iterator<Item = (ChannelId, Option<&'v ChannelView>)>,
        height: u64,
    ) {
        let mut before = std::mem::take(&mut self.channels);
        for (id, view) in known {
            let looked = before.remove(&id).filter(|looked| looked.known.as_ref() == view);
            let new = || Looked { known: view.cloned(), since: height, answers: Vec::new(), asked: 0 };
            self.channels.insert(id, looked.unwrap_or_else(new));
        }
        self.vain.retain(|id, _| self.channels.contains_key(id));
    }

    /// The next questions, as many as are due and `most`: each for some channels that follow each other.
    pub(crate) fn due_pages(&mut self, most: usize) -> Vec<Page> {
        let now = Instant::now();
        if now < self.due {
            return Vec::new();
        }
        // What is new comes before the rest: it is relied on from here on.
        if let Some(least) =
            self.channels.values().filter(|looked| looked.is_new()).map(|new| new.asked).min()
        {
            let mut pages = pages(&self.pick(|looked| looked.is_new() && looked.asked == least));
            pages.truncate(most);
            self.due = now + PAUSE.min(self.sweep);
            for page in &pages {
                self.in_page(*page).for_each(|(_, looked)| looked.asked = looked.asked.max(least + 1));
            }
            return pages;
        }
        let mut pages = pages(&self.pick(|looked| !looked.is_settled()));
        if pages.is_empty() {
            return pages;
        }
        let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        let pause = (self.sweep / count).max(PAUSE.min(self.sweep));
        let missed = now.duration_since(self.due).as_nanos() / pause.as_nanos().max(1);
        let due = usize::try_from(missed).unwrap_or(usize::MAX).saturating_add(1).min(most);
        let next = pages.partition_point(|(first, _)| self.after.is_some_and(|after| *first <= after));
        pages.rotate_left(next);
        pages.truncate(due);
        self.due = now + pause;
        self.after = pages.last().map(|(first, len)| ChannelId(first.0.saturating_add(u64::from(*len) - 1)));
        pages
    }

    /// Some of the channels, in order.
    fn pick(&self, which: impl Fn(&Looked) -> bool) -> Vec<ChannelId> {
        self.channels.iter().filter(|(_, looked)| which(looked)).map(|(id, _)| *id).collect()
    }

    fn in_page(&mut self, (first, len): Page) -> impl Iterator<Item = (&ChannelId, &mut Looked)> {
        self.channels.range_mut(first..ChannelId(first.0.saturating_add(u64::from(len))))
    }

    /// What came of a question.
    pub(crate) fn take(&mut self, page: Page, shown: &[Shown]) {
        let mut vain = std::mem::take(&mut self.vain);
        for (id, looked) in self.in_page(page) {
            let counts = shown.iter().filter(|shown| shown.height >= looked.since);
            looked.answers = counts.map(|shown| shown.channels.get(id).cloned()).collect();
            if looked.answers.len() == shown.len() {
                looked.asked = TRIES;
            }
            let (same, other): (Vec<bool>, Vec<bool>) =
                looked.answers.iter().map(|answer| *answer == looked.known).partition(|same| *same);
            if other.is_empty() {
                vain.remove(id);
            } else {
                let (same, other) = (same.len(), other.len());
                tracing::warn!(channel = %id, same, other, "endpoints show a channel unlike the one in use");
            }
        }
        self.vain = vain;
    }

    /// What some show of a channel and the copy of the graph does not, to act on it once. With each time that this
    /// comes to nothing it is left alone for longer: calls cost gas.
    pub(crate) fn act_on(&mut self, id: ChannelId) -> Vec<ChannelView> {
        let Some(looked) = self.channels.get_mut(&id) else { return Vec::new() };
        let now = Instant::now();
        let wait = match self.vain.get(&id) {
            Some((since, wait)) if now.duration_since(*since) < *wait => return Vec::new(),
            Some((_, wait)) => (*wait * 2).min(self.longest),
            None => self.sweep,
        };
        let mut views: Vec<ChannelView> = Vec::new();
        for view in looked.answers.iter().flatten().filter(|view| Some(*view) != looked.known.as_ref()) {
            if !views.contains(view) {
                views.push(view.clone());
            }
        }
        if !views.is_empty() {
            self.vain.insert(id, (now, wait));
        }
        views
    }

    /// At least half of the endpoints say that requests may not use the channel, or that less is behind it than
    /// is known.
    pub(crate) fn doubt_use(&self, id: ChannelId) -> bool {
        let Some(looked) = self.channels.get(&id) else { return false };
        let Looked { known: Some(known), answers, .. } = looked else { return false };
        let vouch =
            |answer: &&Option<ChannelView>| answer.as_ref().is_some_and(|shown| vouches(shown, known));
        let vouch = answers.iter().filter(vouch).count();
        !answers.is_empty() && vouch * 2 <= answers.len()
    }

    /// All endpoints at the head of the chain show the channel as it is known, or that nothing is left of it.
    pub(crate) fn agree(&self, id: ChannelId) -> bool {
        self.channels.get(&id).is_some_and(|looked| {
            let same = looked.answers.iter().all(|answer| *answer == looked.known);
            looked.is_settled() || (same && !looked.answers.is_empty())
        })
    }
}

/// Requests over a channel of which this is shown are paid for as they are over what is known of it. Deposits grow,
/// and what was drawn counts against whoever drew.
fn vouches(shown: &ChannelView, known: &ChannelView) -> bool {
    let usable =
        matches!(shown.status, ChannelStatus::Open | ChannelStatus::Closing { confirmed: false, .. });
    let covered = shown.deposit_a >= known.deposit_a
        && shown.deposit_b >= known.deposit_b
        && shown.drawn_a <= known.drawn_a
        && shown.drawn_b <= known.drawn_b
        && shown.bond >= known.bond;
    let same = (shown.key_a, shown.key_b, &shown.terms) == (known.key_a, known.key_b, &known.terms);
    usable && covered && same
}

/// Nothing can come of evidence any more.
fn is_over(view: Option<&ChannelView>) -> bool {
    let status = view.map(|view| &view.status);
    matches!(status, None | Some(ChannelStatus::Closed { .. } | ChannelStatus::Cancelled))
}

/// Whether more than half of these say that the contract knows at least these totals.
pub(crate) fn agree_on_totals(id: ChannelId, totals: Totals, shown: &[Shown]) -> bool {
    let knows = |shown: &&Shown| {
        let known = shown.channels.get(&id).map(|view| view.totals);
        known.is_some_and(|known| known.max(totals) == known)
    };
    shown.iter().filter(knows).count() * 2 > shown.len()
}

/// The fewest questions for these ids, which are in order.
pub(crate) fn pages(known: &[ChannelId]) -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    for id in known {
        match pages.last_mut() {
            Some((first, len)) if id.0 - first.0 < u64::from(MAX_PAGE) => *len = (id.0 - first.0 + 1) as u32,
            _ => pages.push((*id, 1)),
        }
    }
    pages
}

#[cfg(test)]
mod tests;
