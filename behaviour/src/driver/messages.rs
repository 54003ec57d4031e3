//! What the controls ask of the node.

use std::sync::Arc;

use futures::channel::{mpsc, oneshot};
use por_core::{AppPricing, Command, Input};

use super::Driver;
use crate::answers::Answer;
use crate::control::Message;
use crate::deliveries;
use crate::pending::Teller;

/// A server that waits until all is answered.
#[derive(Debug)]
pub(super) struct Leaving {
    app: String,
    server: deliveries::Tag,
    reply: oneshot::Sender<()>,
}

impl Driver {
    pub(super) fn on_message(&mut self, message: Message) {
        match message {
            Message::Request { request, teller } => self.start_request(request, teller),
            Message::Watch { request, teller, reply } => {
                let is_open = self.node.is_awaited(&request);
                if is_open {
                    self.requests.watch(request, teller);
                }
                let _ = reply.send(is_open);
            }
            Message::Serve { app, pricing, max_queued, reply } => {
                // The core never has more than `max_queued` unanswered, but for what an earlier and larger
                // queue has left over.
                let (sender, receiver) = deliveries::channel(app.clone(), Arc::clone(&self.shared));
                // Whoever has given the call up takes the app from nobody. Who does so from here on drops
                // the receiver, which the driver is told of.
                if reply.send(receiver).is_ok() {
                    self.servings.insert(app.clone(), sender);
                    // What the last server has answered is not for the new one.
                    let answers = self.answers.drain();
                    self.on_answers(answers);
                    // Stop first, so that unanswered requests are delivered to the new server.
                    self.input(Input::Command(Command::StopServing { app: app.clone() }));
                    self.input(Input::Command(Command::Serve { app, pricing, max_queued }));
                }
            }
            Message::Leave { app, server, reply } => {
                if self.is_served_by(&app, &server) {
                    let (pricing, max_queued) = (AppPricing::default(), 0);
                    self.input(Input::Command(Command::Serve { app: app.clone(), pricing, max_queued }));
                }
                self.leaving.push(Leaving { app, server, reply });
            }
            Message::Unanswered { app, reply } => {
                let _ = reply.send(self.node.unanswered(&app));
            }
            Message::Pursue(command) => self.input(Input::Command(command)),
            Message::Channels { channels, reply } => {
                // Peers to keep a connection with. A closing channel still carries what is under way until its
                // close takes effect, and its ends owe each other Syncs. Others come by themselves.
                self.shared.want(channels.iter().filter(|c| !c.gone).map(|c| c.peer).collect());
                self.input(Input::Channels { channels });
                let _ = reply.send(());
            }
            Message::Graph { version, chain_time_ms, edges, reply } => {
                self.input(Input::Graph { version, chain_time_ms, edges });
                let _ = reply.send(());
            }
            Message::LateFee { per_ms, reply } => {
                self.input(Input::LateFee { per_ms });
                let _ = reply.send(());
            }
            Message::Sever { channel, reply } => {
                self.input(Input::Command(Command::Sever { channel }));
                let _ = reply.send(());
            }
            Message::Settled { reply } => self.settling.push(reply),
            Message::Orders { reply } => {
                let _ = reply.send(self.orders.place());
            }
            Message::Snapshots { reply } => {
                let _ = reply.send(self.node.channels());
            }
            Message::Balances { reply } => {
                let _ = reply.send(self.node.balances());
            }
            Message::Snapshot { channel, reply } => {
                let _ = reply.send(self.node.channel(channel));
            }
            Message::Subscribe { reply } => {
                let (sender, receiver) = mpsc::channel(self.event_queue);
                if reply.send(receiver).is_ok() {
                    self.subscribers.push(sender);
                }
            }
        }
    }

    pub(super) fn on_answers(&mut self, answers: Vec<Answer>) {
        for Answer { request, body } in answers {
            self.input(Input::Command(Command::Respond { request, body }));
        }
    }

    fn start_request(&mut self, request: crate::OutboundRequest, teller: Teller) {
        let token = self.requests.start(teller);
        let own = self.node.key();
        self.crowd.asked(own, self.now());
        self.crowd.took(own, 1);
        let crate::OutboundRequest {
            destination,
            app,
            body,
            response_limit,
            server_price,
            expires_ms,
            graph_version,
            route,
        } = request;
        self.input(Input::Command(Command::Request {
            token,
            destination,
            app,
            body,
            response_limit,
            server_price,
            expires_ms,
            graph_version,
            route,
        }));
    }

    fn is_served_by(&self, app: &str, server: &deliveries::Tag) -> bool {
        self.servings.get(app).is_some_and(|sender| sender.is(server) && !sender.is_closed())
    }

    /// Tells servers that leave when they are done.
    pub(super) fn see_off(&mut self) {
        for leaving in std::mem::take(&mut self.leaving) {
            let Leaving { app, server, reply } = &leaving;
            if reply.is_canceled() {
                continue;
            }
            if self.node.unanswered(app) > 0 && self.is_served_by(app, server) {
                self.leaving.push(leaving);
            } else {
                let _ = leaving.reply.send(());
            }
        }
    }

    pub(super) fn stop_serving(&mut self, app: &str) {
        // A newer server of the same app may have taken over: its stream is open.
        if self.servings.get(app).is_some_and(|sender| sender.is_closed()) {
            self.servings.remove(app);
            self.input(Input::Command(Command::StopServing { app: app.to_owned() }));
        }
    }
}
