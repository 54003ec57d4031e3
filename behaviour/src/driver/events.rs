//! What the state machine tells, to whom it may concern: callers, servers of apps, subscribers, the swarm,
//! and whoever takes orders to the chain.

use std::collections::VecDeque;

use por_core::Event as CoreEvent;
use por_core::types::NodeKey;

use super::Driver;
use crate::behaviour::Event;
use crate::control::{Delivery, Outcome, Progress};
use crate::peer::peer_id;

impl Driver {
    pub(super) fn notify(&mut self, event: CoreEvent, stopped: &mut VecDeque<String>) {
        self.publish(&event);
        match event {
            CoreEvent::Started { token, request, price } => self.requests.started(token, request, price),
            CoreEvent::Refused { token, reason } => {
                self.requests.refused(token, reason);
            }
            CoreEvent::Acked { request, bound_ms } => {
                self.requests.progress(request, Progress::Acked { bound_ms })
            }
            CoreEvent::Overdue { request } => self.requests.progress(request, Progress::Overdue),
            CoreEvent::Response { request, receipt, body } => {
                self.requests.finish(request, Outcome::Response { receipt, body });
            }
            CoreEvent::Late { request, amount } => self.requests.progress(request, Progress::Late { amount }),
            CoreEvent::Severed { request, order, refund, late } => {
                self.requests.finish(request, Outcome::Severed { order: Box::new(order), refund, late });
            }
            CoreEvent::Rejected { request, reason, refund, invalid } => {
                self.requests.finish(request, Outcome::Rejected { reason, refund, invalid });
            }
            CoreEvent::Incoming { request, from, author, app, body, response_limit, server_price } => {
                let name = app.clone();
                let delivery =
                    Delivery { id: request, from, author, app, body, response_limit, server_price };
                let taken = self.servings.get(&name).is_some_and(|sender| sender.send(delivery));
                if !taken {
                    // Kept by the core and delivered to the app's next server.
                    stopped.push_back(name);
                }
            }
            CoreEvent::PeerReady { peer } => self.tell(peer, |peer| Event::PeerReady { peer }),
            CoreEvent::PeerLost { peer } => self.tell(peer, |peer| Event::PeerLost { peer }),
            CoreEvent::Misbehaved { peer, reason } => {
                self.tell(peer, |peer| Event::Misbehaved { peer, reason });
            }
            CoreEvent::EdgeSevered { channel, peer, reason } => {
                tracing::warn!(%channel, %peer, ?reason, "edge severed");
            }
            CoreEvent::SeverWithheld { peer, reason } => {
                tracing::warn!(%peer, ?reason, "a peer is in breach, but the fault may be here");
            }
            CoreEvent::Short { channel, peer } => {
                tracing::warn!(%channel, %peer, "the own balance on the channel is too small: top it up");
            }
            CoreEvent::Pursued { channel, peer, request, end } => {
                tracing::warn!(%channel, %peer, %request, ?end, "pursuit over");
            }
            CoreEvent::PaidLate { .. } | CoreEvent::Relayed { .. } | CoreEvent::Served { .. } => {}
            CoreEvent::Pursue { .. } => {}
        }
    }

    fn tell(&mut self, peer: NodeKey, event: impl FnOnce(libp2p_identity::PeerId) -> Event) {
        let Some(peer) = peer_id(&peer) else { return };
        if let Err(error) = self.to_behaviour.try_send(event(peer))
            && error.is_full()
        {
            tracing::warn!(%peer, "the swarm is not polled: an event about this peer is lost");
        }
    }

    fn publish(&mut self, event: &CoreEvent) {
        if self.subscribers.is_empty() {
            return;
        }
        let event = light(event);
        self.subscribers.retain_mut(|subscriber| subscriber.try_send(event.clone()).is_ok());
    }
}

/// Bodies are the business of those who asked for them.
fn light(event: &CoreEvent) -> CoreEvent {
    let mut event = event.clone();
    if let CoreEvent::Incoming { body, .. } | CoreEvent::Response { body, .. } = &mut event {
        body.clear();
    }
    event
}
